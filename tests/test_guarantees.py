"""The promises of docs/guarantees.md, proven by what clients see, and a proof that the proof can fail."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import ConcurrentUpdate
from app.model import Author, Expected, Setting
from app.store import Store
from app.store.connections import ServerConnections
from app.store.redis_store import RedisStore
from tests.clients import Load, StoreRegister
from tests.conftest import Run
from tests.connections import UnwatchedConnections
from tests.proof import prove
from tests.register import Entry, Operation, violations

TIMEOUT = 5.0
HISTORY_LENGTH = 100_000


def test_what_clients_saw_while_the_store_failed_fits_one_register(tmp_path: Path) -> None:
    proof = prove(tmp_path, operations=6400, seconds_between_faults=0.2)
    assert proof.violations == []
    assert proof.failures >= 5
    assert proof.load.count("answered") > 1000
    assert proof.load.count("conflict") > 10
    assert proof.load.count("unknown") > 0
    assert "Traceback" not in (tmp_path / "log").read_text()


class CachedStore(RedisStore):
    """A negative control: reads from a cache that a write of another worker does not empty."""

    def __init__(self, connections: ServerConnections) -> None:
        super().__init__(connections, TIMEOUT, HISTORY_LENGTH)
        self._cache: dict[str, Setting] = {}

    async def current(self, tenant: str) -> Setting:
        if tenant not in self._cache:
            self._cache[tenant] = await super().current(tenant)
        return self._cache[tenant]

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        self._cache[tenant] = await super().change(tenant, enabled, author, expected)
        return self._cache[tenant]


class HastyStore(RedisStore):
    """A negative control: answers a write before it is stored."""

    def __init__(self, connections: ServerConnections) -> None:
        super().__init__(connections, TIMEOUT, HISTORY_LENGTH)
        self._later: set[asyncio.Task[Setting]] = set()

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        stands = await self.current(tenant)
        if stands.enabled == enabled:
            return stands
        self._later.add(asyncio.create_task(super().change(tenant, enabled, author, expected)))
        return Setting(enabled, stands.version + 1)

    async def close(self) -> None:
        await asyncio.gather(*self._later, return_exceptions=True)
        await super().close()


class UnconditionalStore(RedisStore):
    """A negative control: does not look at what a change expects."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        return await super().change(tenant, enabled, author)


class NervousStore(RedisStore):
    """A negative control: sees rivals where there are none."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        if hash(author) % 2:
            raise ConcurrentUpdate((await self.current(tenant)).version)
        return await super().change(tenant, enabled, author, expected)


def honest(url: str) -> Store:
    return RedisStore(ServerConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def cached(url: str) -> Store:
    return CachedStore(ServerConnections.to(url))


def unwatched(url: str) -> Store:
    return RedisStore(UnwatchedConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def hasty(url: str) -> Store:
    return HastyStore(ServerConnections.to(url))


def unconditional(url: str) -> Store:
    return UnconditionalStore(ServerConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def nervous(url: str) -> Store:
    return NervousStore(ServerConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def observe(run: Run, url: str, tenant: str, make: Callable[[str], Store]) -> list[str]:
    """What is wrong with a register behind two stores of a kind, eight clients at each."""

    async def work() -> list[str]:
        observed, stores = Load(), [make(url), make(url)]
        registers = [StoreRegister(stores[n % 2], tenant) for n in range(16)]
        await asyncio.gather(*(observed.client(tenant, each, 60, n) for n, each in enumerate(registers)))
        for store in stores:
            await store.close()
        last = honest(url)
        history = await StoreRegister(last, tenant).history()
        await last.close()
        assert observed.count("unknown") == 0
        return observed.violations({tenant: history})

    observed: list[str] = run(work())
    return observed


def test_the_store_itself_is_a_register(run: Run, redis_url: str, tenant: str) -> None:
    assert observe(run, redis_url, tenant, honest) == []


@pytest.mark.parametrize("broken", [cached, unwatched, hasty, unconditional, nervous])
def test_a_store_that_breaks_a_promise_is_caught(
    run: Run, redis_url: str, tenant: str, broken: Callable[[str], Store]
) -> None:
    assert observe(run, redis_url, tenant, broken) != []


HISTORY = [Entry(1, enabled=True, name="a"), Entry(2, enabled=False, name="b")]
A = Operation("a", 0.0, 1.0, "answered", wanted=True, expected=0, version=1, enabled=True)
B = Operation("b", 2.0, 3.0, "answered", wanted=False, version=2, enabled=False)
READ = Operation("c", 4.0, 5.0, "answered", wanted=None, version=2, enabled=False)


def test_what_one_register_can_do_has_no_fault() -> None:
    stale = Operation("d", 4.0, 5.0, "conflict", wanted=True, expected=1, version=2)
    lost = replace(B, outcome="unknown", version=None, enabled=None)
    concurrent = replace(READ, start=2.5, end=2.6, version=1, enabled=True)
    refused = Operation("d", 2.0, 5.0, "conflict", wanted=True, version=2)
    for operations in ([A, B, READ], [A, lost, READ], [A, B, concurrent], [A, B, refused], [A, B, stale], [A, lost]):
        assert list(violations(operations, HISTORY)) == []


@pytest.mark.parametrize(
    ("operations", "history"),
    [
        ([A, B], [HISTORY[0], Entry(3, enabled=False, name="b")]),
        ([A, B], [*HISTORY, Entry(3, enabled=False, name="x")]),
        ([A, B], HISTORY[:1]),
        ([A, replace(B, version=1)], HISTORY),
        ([A, replace(B, outcome="conflict", enabled=None)], HISTORY),
        ([A, replace(B, wanted=True)], HISTORY),
        ([A, B, replace(READ, version=1, enabled=True)], HISTORY),
        ([A, B, replace(READ, version=0, enabled=False)], HISTORY),
        ([A, B, replace(READ, enabled=True)], HISTORY),
        ([A, B, replace(READ, version=3)], HISTORY),
        ([A], HISTORY),
        ([A, B, replace(A, name="e", start=0.5)], HISTORY),
        ([A, replace(B, expected=0)], HISTORY),
        ([A, B, Operation("d", 4.0, 5.0, "conflict", wanted=True, expected=2, version=2)], HISTORY),
        ([A, B, Operation("d", 4.0, 5.0, "conflict", wanted=True, version=2)], HISTORY),
        ([A, B], [HISTORY[0], replace(HISTORY[1], name="a")]),
        ([A, B, Operation("d", 6.0, 7.0, "conflict", wanted=True, version=1)], HISTORY),
    ],
)
def test_what_no_register_can_do_is_a_fault(operations: list[Operation], history: list[Entry]) -> None:
    assert list(violations(operations, history)) != []
