"""Clients of one worker, on the machine of the worker: they write settings, read them and follow event streams."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

import httpx
import httpx_sse

from tests.clients import Conflict, ServiceRegister, UnknownOutcome
from tests.contract import HISTORY_PATH, PATH
from tests.processes import Service, make_token
from tests.register import Operation
from tests.topologies import Host
from tests.waiting import PATIENCE

# In seconds: the delay of a client before it opens an event stream again.
_RECONNECT: Final = 0.2


@dataclass(frozen=True)
class Received:
    """An event that a client received. Changes with the same version differ in `changed_at`."""

    is_reset: bool
    version: int
    changed_at: str | None


@dataclass
class EventLog:
    """The events that one client received. It resumes after each end of its stream, with the ID of the last event."""

    tenant: str
    leaves: bool = False  # its client is absent between `leave` and `come_back`
    events: list[Received] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


@dataclass
class WorkerClients:
    """One client for each of `tenants` that reads and then writes, `interval` seconds after it last began to.

    Two more for each tenant in `followed` follow its event stream. One of them is absent after `leave`.
    """

    host: Host
    service: Service
    tenants: Collection[str]
    followed: Collection[str]
    interval: float
    name: str = "owner"
    operations: dict[str, list[Operation]] = field(default_factory=dict)
    received: list[EventLog] = field(default_factory=list)
    _stopped_writing: threading.Event = field(default_factory=threading.Event)
    _has_written: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _has_come_back: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the clients in a thread."""

        def start_thread() -> threading.Thread:
            thread = threading.Thread(target=lambda: asyncio.run(self._run()))
            thread.start()
            return thread

        self.operations = {tenant: [] for tenant in self.tenants}
        self.received = [EventLog(tenant, leaves) for tenant in self.followed for leaves in (False, True)]
        self._has_come_back.set()
        self._thread = self.host.run(start_thread)

    def leave(self) -> None:
        """Let the clients that leave read no more events."""
        self._has_come_back.clear()

    def come_back(self) -> None:
        """Let the clients that have left resume."""
        self._has_come_back.set()

    def stop_writing(self) -> None:
        """Let no new write begin, and return once the last one has ended."""
        self._stopped_writing.set()
        assert self._has_written.wait(PATIENCE)

    def stop(self) -> None:
        """End all clients. Those that have an operation in progress wait for its response."""
        for event in (self._stopped_writing, self._stopped, self._has_come_back):
            event.set()
        if self._thread is not None:
            self._thread.join()

    def acknowledged(self, after: float = 0.0, tenant: str | None = None) -> list[Operation]:
        """Return the writes that were acknowledged after that time, in the order of their acknowledgement."""
        own = self._answered() if tenant is None else list(self.operations[tenant])
        return sorted((each for each in own if is_acknowledged(each) and each.end > after), key=lambda each: each.end)

    def reads(self) -> list[Operation]:
        """Return the reads that were answered."""
        return [each for each in self._answered() if each.wanted is None]

    def operations_since(self, began: float) -> int:
        """Return how many operations every writing client has begun and ended since then, at least."""
        return min(sum(each.start > began for each in list(own)) for own in self.operations.values())

    def refuses(self, operations: int = 10) -> bool:
        """Return True if none of the last operations of any client is an acknowledged write, and some failed."""
        last = [list(own)[-operations:] for own in self.operations.values()]
        return all(
            sum(each.outcome == "unknown" for each in own) >= operations // 2 and not any(map(is_acknowledged, own))
            for own in last
        )

    def history(self, tenant: str) -> dict[int, "Change"]:
        """Return the changes of a tenant by version, as the worker reads them now. Raises httpx.HTTPError."""
        return self.host.run(lambda: _history(self.service.url, tenant))

    def newest_writes(self, tenant: str) -> set[str]:
        """Return the newest writes in the history of a tenant, as the worker reads it now. Raises httpx.HTTPError."""
        return {change.name for change in self.host.run(lambda: _history(self.service.url, tenant, pages=1)).values()}

    def _answered(self) -> list[Operation]:
        return [each for own in self.operations.values() for each in list(own) if each.outcome == "answered"]

    async def _run(self) -> None:
        writers = [asyncio.create_task(self._write(tenant, own)) for tenant, own in self.operations.items()]
        followers = [asyncio.create_task(self._follow(log)) for log in self.received]
        await asyncio.gather(*writers)
        self._has_written.set()
        await asyncio.to_thread(self._stopped.wait)
        for follower in followers:
            follower.cancel()
        for outcome in await asyncio.gather(*followers, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome

    async def _write(self, tenant: str, operations: list[Operation]) -> None:
        register = ServiceRegister(self.service.port, tenant)
        for number in itertools.count():
            if self._stopped_writing.is_set():
                break
            began = time.monotonic()
            read = await _operate(register, Operation(f"{self.name}-{tenant}-read-{number}", began))
            operations.append(read)
            if read.version is not None:
                write = Operation(
                    f"{self.name}-{tenant}-{number}", time.monotonic(), wanted=not read.enabled, expected=read.version
                )
                operations.append(await _operate(register, write))
            await asyncio.sleep(max(0.0, began + self.interval - time.monotonic()))
        await register.close()

    async def _follow(self, log: EventLog) -> None:
        headers = {"Authorization": f"Bearer {make_token(log.tenant)}"}
        async with httpx.AsyncClient(base_url=self.service.url, trust_env=False, timeout=None) as client:  # noqa: S113 - comments arrive seldom
            while True:
                with contextlib.suppress(httpx.HTTPError):  # a status of 500, or a connection that ended in an event
                    async with httpx_sse.aconnect_sse(client, "GET", f"{PATH}/events", headers=headers) as source:
                        source.response.raise_for_status()
                        async for event in source.aiter_sse():
                            if log.leaves and not self._has_come_back.is_set():
                                break
                            if not event.data:
                                continue  # it only sets the delay of the next attempt
                            data = event.json()
                            log.events.append(Received(event.event == "reset", data["version"], data["changed_at"]))
                            headers["Last-Event-ID"] = event.id
                if log.leaves and not self._has_come_back.is_set():
                    await asyncio.to_thread(self._has_come_back.wait)
                else:
                    log.ends.append(time.monotonic())
                    await asyncio.sleep(_RECONNECT)


@dataclass(frozen=True)
class Change:
    """A change in the history."""

    changed_at: str
    name: str


def is_acknowledged(operation: Operation) -> bool:
    """Return True for a write that was answered with 200."""
    return operation.wanted is not None and operation.outcome == "answered"


async def _operate(register: ServiceRegister, operation: Operation) -> Operation:
    try:
        if operation.wanted is None:
            version, enabled = await register.read()
        else:
            version, enabled = await register.write(operation.name, operation.wanted, operation.expected)
    except Conflict as conflict:
        return replace(operation, end=time.monotonic(), outcome="conflict", version=conflict.version)
    except UnknownOutcome:
        return replace(operation, end=time.monotonic())
    return replace(operation, end=time.monotonic(), outcome="answered", version=version, enabled=enabled)


def _history(url: str, tenant: str, pages: int = 10_000) -> dict[int, Change]:
    """Return the newest changes, 100 of them in each page."""
    changes: dict[int, Change] = {}
    headers = {"Authorization": f"Bearer {make_token(tenant)}"}
    with httpx.Client(base_url=url, trust_env=False, headers=headers) as client:
        for _ in range(pages):
            before = min(changes, default=10**9)
            page = client.get(f"{HISTORY_PATH}?limit=100&before={before}").raise_for_status().json()["changes"]
            changes |= {each["version"]: Change(each["changed_at"], each["request_id"]) for each in page}
            if before == min(changes, default=10**9):
                break
    return changes
