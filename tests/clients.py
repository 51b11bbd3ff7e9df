"""Concurrent clients that read and write, and record each operation."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import Author
from app.store import Store
from tests.contract import HISTORY_PATH, PATH
from tests.processes import make_token
from tests.register import Entry, Operation, Outcome, violations


class Conflict(Exception):
    """The write was a conflict; `version` is the current version."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class UnknownOutcome(Exception):
    """The result of the operation is not known."""


class Failed(Exception):
    """The operation failed, and nothing was stored."""


class Left(Exception):
    """The client left before the result."""


class Register(Protocol):
    """One tenant's setting, as one client sees it. Raises Conflict, UnknownOutcome, Failed and Left."""

    async def read(self) -> tuple[int, bool]: ...

    async def write(self, name: str, enabled: bool, expected: int | None) -> tuple[int, bool]: ...


_OUTCOMES: Final[dict[type[Exception], Outcome]] = {UnknownOutcome: "unknown", Failed: "failed", Left: "left"}


@dataclass
class Load:
    """The operations of many clients on the registers of some tenants."""

    operations: dict[str, list[Operation]] = field(default_factory=dict)
    names: Iterator[int] = field(default_factory=itertools.count)

    def count(self, outcome: str) -> int:
        return sum(each.outcome == outcome for operations in self.operations.values() for each in operations)

    @property
    def total(self) -> int:
        return sum(map(len, self.operations.values()))

    async def client(
        self, tenant: str, register: Register, operations: int, seed: int | str, pause: float = 0.0
    ) -> None:
        """Run one client: two reads for each write. Half of the writes expect the version that it saw last.

        Between two operations, it waits for `pause` seconds on average.
        """
        chance = random.Random(seed)  # noqa: S311 - generates load, not secrets
        seen: int | None = None
        for _ in range(operations):
            wanted = None if chance.random() < 2 / 3 else chance.random() < 1 / 2
            expected = seen if wanted is not None and chance.random() < 1 / 2 else None
            operation = await self._operate(register, wanted, expected)
            self.operations.setdefault(tenant, []).append(operation)
            seen = operation.version if operation.version is not None else seen
            if pause:
                await asyncio.sleep(chance.expovariate(1 / pause))

    async def _operate(self, register: Register, wanted: bool | None, expected: int | None) -> Operation:
        started = Operation(f"operation-{next(self.names)}", _now(), wanted=wanted, expected=expected)
        try:
            call = register.read() if wanted is None else register.write(started.name, wanted, expected)
            version, enabled = await call
        except Conflict as conflict:
            return replace(started, end=_now(), outcome="conflict", version=conflict.version)
        except (UnknownOutcome, Failed, Left) as error:
            ended = replace(started, end=_now(), outcome=_OUTCOMES[type(error)])
            await asyncio.sleep(0.01)  # the store may be down: do not retry at once
            return ended
        return replace(started, end=_now(), outcome="answered", version=version, enabled=enabled)

    def violations(self, histories: dict[str, list[Entry]]) -> list[str]:
        return [
            violation
            for tenant, history in histories.items()
            for violation in violations(self.operations[tenant], history)
        ]


class StoreRegister:
    """A register in a store, without the service."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant

    async def read(self) -> tuple[int, bool]:
        try:
            setting = await self._store.current(self._tenant)
        except StoreError as error:
            raise Failed from error
        return setting.version, setting.enabled

    async def write(self, name: str, enabled: bool, expected: int | None) -> tuple[int, bool]:
        condition = None if expected is None else frozenset({expected})
        try:
            setting = await self._store.change(self._tenant, enabled, Author("client", name), condition)
        except ConcurrentUpdate as error:
            raise Conflict(error.version) from error
        except OutcomeUnknown as error:
            raise UnknownOutcome from error
        except StoreError as error:
            raise Failed from error
        return setting.version, setting.enabled

    async def history(self) -> list[Entry]:
        changes = await self._store.history(self._tenant, 10**6)
        return [Entry(c.setting.version, c.setting.enabled, c.author.request_id) for c in reversed(changes)]


class ServiceRegister:
    """A register behind the service. It reconnects if its connection breaks. `author` makes its changes."""

    def __init__(self, port: int, tenant: str, author: str = "tester") -> None:
        self._port = port
        self._token = make_token(tenant, sub=author)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def read(self) -> tuple[int, bool]:
        status, etag, body = await self._request("GET", PATH)
        if status != 200:
            raise UnknownOutcome
        return etag, bool(body["enabled"])

    async def write(self, name: str, enabled: bool, expected: int | None) -> tuple[int, bool]:
        headers = f"Content-Type: application/json\r\nX-Request-ID: {name}\r\nChange-Reason: because of {name}\r\n"
        headers += "" if expected is None else f'If-Match: "{expected}"\r\n'
        status, etag, body = await self._request("POST", PATH, headers, json.dumps({"enabled": enabled}))
        if status == 409:
            raise Conflict(etag)
        if status != 200:
            raise UnknownOutcome
        return etag, bool(body["enabled"])

    async def history(self) -> list[Entry]:
        return [Entry.of(each) for each in await self.changes()]

    async def changes(self) -> list[dict[str, Any]]:
        """Return the whole history, oldest first."""
        changes: list[dict[str, Any]] = []
        before = 10**9
        async with asyncio.timeout(20):
            while before > 1:
                status, _, body = await self._request("GET", f"{HISTORY_PATH}?limit=100&before={before}")
                if status != 200:
                    continue  # the store is not available again yet
                if not body["changes"]:
                    break
                changes += body["changes"]
                before = changes[-1]["version"]
        return changes[::-1]

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None

    async def _request(self, method: str, path: str, headers: str = "", body: str = "") -> tuple[int, int, Any]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n{headers}"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines[1:] if line)
            content = await reader.readexactly(int(fields["content-length"]))
        except (OSError, EOFError) as error:
            await self.close()
            raise UnknownOutcome from error
        return int(lines[0].split(" ")[1]), int(fields.get("etag", '"0"').strip('"')), json.loads(content)


@contextlib.asynccontextmanager
async def in_background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work` in a task during the block, and cancel it at the end."""
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
