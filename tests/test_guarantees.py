"""The guarantees of docs/guarantees.md, checked on the responses that clients get. Broken stores check the checker."""

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
from tests.audit import audit_violations
from tests.clients import Load, StoreRegister
from tests.conftest import Run
from tests.connections import UnwatchedConnections
from tests.proof import prove
from tests.register import Entry, Loss, Operation, violations

TIMEOUT = 5.0
HISTORY_LENGTH = 100_000


@pytest.mark.parametrize(("min_replicas", "operations"), [(0, 6400), (1, 3200)])
def test_clients_see_one_register_while_the_store_fails(tmp_path: Path, min_replicas: int, operations: int) -> None:
    proof = prove(tmp_path, operations, 0.2, min_replicas)
    assert proof.violations == []
    assert proof.failures >= 3
    assert proof.load.count("answered") > 1000
    assert proof.load.count("conflict") > 10
    assert proof.load.count("unknown") > 0
    assert proof.audit_lines > proof.unknown_lines > 0
    assert "Traceback" not in (tmp_path / "log").read_text()


class CachedStore(RedisStore):
    """A negative control: reads from a cache that writes of other workers do not invalidate."""

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


class EarlyAnswerStore(RedisStore):
    """A negative control: answers a write before Redis has stored it."""

    def __init__(self, connections: ServerConnections) -> None:
        super().__init__(connections, TIMEOUT, HISTORY_LENGTH)
        self._later: set[asyncio.Task[Setting]] = set()

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        current_setting = await self.current(tenant)
        if current_setting.enabled == enabled:
            return current_setting
        self._later.add(asyncio.create_task(super().change(tenant, enabled, author, expected)))
        return Setting(enabled, current_setting.version + 1)

    async def close(self) -> None:
        await asyncio.gather(*self._later, return_exceptions=True)
        await super().close()


class UnconditionalStore(RedisStore):
    """A negative control: ignores the version that a change expects."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        return await super().change(tenant, enabled, author)


class FalseConflictStore(RedisStore):
    """A negative control: reports conflicts without another writer."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        if hash(author) % 2:
            raise ConcurrentUpdate((await self.current(tenant)).version)
        return await super().change(tenant, enabled, author, expected)


def correct(url: str) -> Store:
    return RedisStore(ServerConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def cached(url: str) -> Store:
    return CachedStore(ServerConnections.to(url))


def unwatched(url: str) -> Store:
    return RedisStore(UnwatchedConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def early_answer(url: str) -> Store:
    return EarlyAnswerStore(ServerConnections.to(url))


def unconditional(url: str) -> Store:
    return UnconditionalStore(ServerConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def false_conflict(url: str) -> Store:
    return FalseConflictStore(ServerConnections.to(url), TIMEOUT, HISTORY_LENGTH)


def observed_faults(run: Run, url: str, tenant: str, make: Callable[[str], Store]) -> list[str]:
    """Return the faults of one register behind two stores of one kind, with eight clients each."""

    async def work() -> list[str]:
        observed, stores = Load(), [make(url), make(url)]
        registers = [StoreRegister(stores[n % 2], tenant) for n in range(16)]
        await asyncio.gather(*(observed.client(tenant, each, 60, n) for n, each in enumerate(registers)))
        for store in stores:
            await store.close()
        last = correct(url)
        history = await StoreRegister(last, tenant).history()
        await last.close()
        assert observed.count("unknown") == observed.count("failed") == 0
        return observed.violations({tenant: history})

    observed: list[str] = run(work())
    return observed


def test_the_store_itself_is_a_register(run: Run, redis_url: str, tenant: str) -> None:
    assert observed_faults(run, redis_url, tenant, correct) == []


@pytest.mark.parametrize("broken", [cached, unwatched, early_answer, unconditional, false_conflict])
def test_store_that_breaks_a_guarantee_is_detected(
    run: Run, redis_url: str, tenant: str, broken: Callable[[str], Store]
) -> None:
    assert observed_faults(run, redis_url, tenant, broken) != []


HISTORY = [Entry(1, enabled=True, name="a"), Entry(2, enabled=False, name="b")]
A = Operation("a", 0.0, 1.0, "answered", wanted=True, expected=0, version=1, enabled=True)
B = Operation("b", 2.0, 3.0, "answered", wanted=False, version=2, enabled=False)
READ = Operation("c", 4.0, 5.0, "answered", wanted=None, version=2, enabled=False)
UNDONE = Operation(
    "d", 2.0, 5.0, "conflict", wanted=True, expected=1, version=1
)  # in conflict with "b", if it was lost


def test_operations_possible_on_one_register_have_no_fault() -> None:
    stale = Operation("d", 4.0, 5.0, "conflict", wanted=True, expected=1, version=2)
    lost = replace(B, outcome="unknown", version=None, enabled=None)
    concurrent = replace(READ, start=2.5, end=2.6, version=1, enabled=True)
    refused = Operation("d", 2.0, 5.0, "conflict", wanted=True, version=2)
    guessed = Operation("d", 2.0, 5.0, "conflict", wanted=True, expected=2, version=2)
    for operations in (
        [A, B, READ],
        [A, lost, READ],
        [A, B, concurrent],
        [A, B, refused],
        [A, B, stale],
        [A, B, guessed],
        [A, lost],
    ):
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
        ([A, B, UNDONE], HISTORY),
        ([A, B, replace(UNDONE, start=3.5, expected=2, version=2)], HISTORY),
        ([A, B], [HISTORY[0], replace(HISTORY[1], name="a")]),
        ([A, B, Operation("d", 6.0, 7.0, "conflict", wanted=True, version=1)], HISTORY),
    ],
)
def test_operations_impossible_on_one_register_are_a_fault(operations: list[Operation], history: list[Entry]) -> None:
    assert list(violations(operations, history)) != []


FORK = [HISTORY[0], Entry(2, enabled=False, name="c")]  # "b" was lost, and "c" took its version
C = replace(READ, wanted=False)
OLD = Operation("d", 6.0, 7.0, "answered", version=1, enabled=True)


def test_excused_loss_of_a_write_is_no_fault() -> None:
    loss = Loss([HISTORY[1]], frozenset("b"), [(3.1, 3.5)])
    assert list(violations([A, B, C], FORK, loss)) == []
    assert list(violations([A, B, OLD], HISTORY[:1], loss)) == []
    assert list(violations([A, B, UNDONE], HISTORY[:1], loss)) == []


def test_older_version_is_no_fault_in_an_unsettled_time() -> None:
    assert list(violations([A, B, OLD], HISTORY, Loss(unsettled=[(3.5, 6.5)]))) == []


@pytest.mark.parametrize(
    ("operations", "loss"),
    [
        ([A, B, C], Loss([HISTORY[1]])),  # an answered write was lost
        ([A, replace(B, outcome="failed"), C], Loss([HISTORY[1]], frozenset("b"))),  # a failed write was stored
        ([A, replace(B, wanted=True), C], Loss([HISTORY[1]], frozenset("b"))),  # it did not want what was lost
        ([A, B, C, OLD], Loss([HISTORY[1]], frozenset("b"), [(3.1, 3.5)])),
        ([A, C, OLD], Loss(unsettled=[(5.1, 5.5)])),  # a kept write is unseen
        ([A, B, C, replace(UNDONE, start=3.2)], Loss([HISTORY[1]], frozenset("b"))),  # no rival write
    ],
)
def test_impossible_losses_are_a_fault(operations: list[Operation], loss: Loss) -> None:
    assert list(violations(operations, FORK, loss)) != []


CHANGE = {"version": 1, "enabled": True, "changed_by": "anna", "reason": "because", "request_id": "a"}
LINE = {"tenant": "acme", "outcome": "stored", **CHANGE}
UNKNOWN = LINE | {"outcome": "unknown", "request_id": "d"}


@pytest.mark.parametrize("lines", [[LINE], [LINE, UNKNOWN]])
def test_audit_log_that_agrees_with_the_history_has_no_fault(lines: list[dict[str, object]]) -> None:
    assert list(audit_violations(lines, {"acme": [CHANGE]}, [A, replace(UNDONE, outcome="unknown")])) == []


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [LINE, LINE],
        [LINE | {"tenant": "other"}],
        *([LINE | {name: "x"}] for name in CHANGE),
        [LINE, LINE | {"request_id": "d"}],
        [LINE, UNKNOWN, UNKNOWN],
        [LINE | {"outcome": "unknown"}],
        [LINE, UNKNOWN | {"request_id": "x"}],
    ],
)
def test_audit_log_that_contradicts_the_history_is_a_fault(lines: list[dict[str, object]]) -> None:
    operations = [A, replace(UNDONE, outcome="unknown"), replace(UNDONE, name="x")]
    assert list(audit_violations(lines, {"acme": [CHANGE]}, operations)) != []
