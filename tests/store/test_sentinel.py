"""The primary that sentinels name, and writes that they do not confirm. The sentinels are fakes or real servers."""

import asyncio
import contextlib
import logging
import operator
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import OutcomeUnknown, StoreError
from app.model import NEVER_SET, Author, Setting
from app.store.connections import ServerConnections
from app.store.pipeline import Command, Pipeline, PipelineWork, StoreConnectionError, T
from app.store.redis_store import RedisStore
from app.store.redis_url import Address, HostPort, Quorum
from app.store.sentinel import SentinelTopology
from app.store.topology import connect, sentinels_at
from tests.conftest import Run
from tests.processes import Service, make_token
from tests.topologies import Node, SentinelStore, sentinel_store
from tests.waiting import PATIENCE, eventually

OLD, NEW, OTHER = ("old", 1), ("new", 2), ("other", 3)
AUTHOR = Author("tester", "request-1")


class FakeSentinel(ServerConnections):
    """A sentinel that names `primary`. It answers while `answers` is set."""

    def __init__(self, primary: HostPort, epoch: int) -> None:
        super().__init__(lambda: pytest.fail("a connection was opened"), "sentinel")
        self.primary, self.epoch = primary, epoch
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def run(self, _key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        self.asked += 1
        await self.answers.wait()
        return await work(self._reply)

    async def _reply(self, *commands: Command, errors: bool = False) -> list[Any]:
        host, port = (str(part).encode() for part in self.primary)
        master = [b"config-epoch", str(self.epoch).encode(), b"num-other-sentinels", b"2"]
        return [{"MASTER": master, "GET-MASTER-ADDR-BY-NAME": [host, port]}[str(command[1])] for command in commands]


class FakeServer(ServerConnections):
    """A server whose reply to every command is its own name."""

    def __init__(self, host_port: HostPort, _on_connect: PipelineWork[None]) -> None:
        super().__init__(lambda: pytest.fail("a connection was opened"), host_port[0])
        self.used = 0

    async def run(self, _key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        self.used += 1
        return await work(self._reply)

    async def _reply(self, *commands: Command, errors: bool = False) -> list[Any]:
        return [self.name for _ in commands]


@contextlib.asynccontextmanager
async def topology_of(
    sentinels: Sequence[ServerConnections],
    quorum: Quorum = "majority",
    connections_to: Callable[[HostPort, PipelineWork[None]], ServerConnections] = FakeServer,
) -> AsyncIterator[SentinelTopology]:
    topology = SentinelTopology(sentinels, "oms", connections_to, quorum)
    try:
        yield topology
    finally:
        await topology.close()


async def read(topology: SentinelTopology) -> str:
    """Return the name of the server that a read reaches."""
    (name,) = await topology.run("key", lambda pipeline: pipeline(("PING",)))
    return str(name)


async def write(topology: SentinelTopology) -> str:
    """Return the name of the server that a write reaches."""
    (name,) = await topology.run("key", lambda pipeline: pipeline(("PING",)), writes=True)
    return str(name)


async def outcome(topology: SentinelTopology) -> str:
    """Return the name of the server that a write reaches, or the reason why it is refused."""
    try:
        return await write(topology)
    except StoreConnectionError as error:
        return str(error)


async def has_polled(*sentinels: FakeSentinel, times: int = 1) -> None:
    """Wait until each sentinel was asked that many times more, and once again: the earlier answers were handled."""
    before = [each.asked for each in sentinels]
    after = [asked + times + 1 for asked in before]
    assert await asyncio.to_thread(eventually, lambda: all(map(operator.ge, [each.asked for each in sentinels], after)))


async def becomes(expected: str, observed: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (seen := await observed()) != expected:
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.01)


def test_newest_epoch_wins_over_the_first_listed_sentinel(run: Run) -> None:
    async def follow() -> None:
        cut_off = FakeSentinel(OLD, 0)
        async with topology_of([cut_off, FakeSentinel(NEW, 1), FakeSentinel(NEW, 1)]) as topology:
            assert (await read(topology), await write(topology)) == ("new", "new")

    run(follow())


def test_first_primary_is_chosen_among_the_answers_of_a_majority(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sentinel._POLL_TIMEOUT", 10 * PATIENCE)

    async def follow() -> None:
        cut_off, slow, dead = FakeSentinel(OLD, 0), FakeSentinel(NEW, 1), FakeSentinel(NEW, 1)
        slow.answers.clear()
        dead.answers.clear()
        async with topology_of([cut_off, slow, dead]) as topology:
            reading = asyncio.create_task(read(topology))
            assert await asyncio.to_thread(eventually, lambda: slow.asked)
            slow.answers.set()
            assert await reading == "new"

    run(follow())


def test_newer_epoch_of_one_sentinel_is_followed(run: Run) -> None:
    async def follow() -> None:
        sentinels = [FakeSentinel(OLD, 3) for _ in range(3)]
        async with topology_of(sentinels) as topology:
            assert await write(topology) == "old"
            sentinels[2].primary, sentinels[2].epoch = NEW, 4
            await becomes("new", lambda: read(topology))
            assert await outcome(topology) == "2 of 3 sentinels must confirm the primary, 1 did"
            sentinels[1].primary, sentinels[1].epoch = NEW, 4
            await becomes("new", lambda: outcome(topology))

    run(follow())


def test_older_epoch_is_not_believed_after_the_newest_is_silent(run: Run) -> None:
    async def follow() -> None:
        cut_off, second, third = FakeSentinel(OLD, 0), FakeSentinel(NEW, 1), FakeSentinel(NEW, 1)
        async with topology_of([cut_off, second, third]) as topology:
            assert await read(topology) == "new"
            second.answers.clear()
            third.answers.clear()
            await becomes("2 of 3 sentinels must confirm the primary, 0 did", lambda: outcome(topology))
            await has_polled(cut_off, times=2)
            assert await read(topology) == "new"
            cut_off.answers.clear()
            await has_polled(cut_off, times=4)  # longer than any answer counts
            cut_off.answers.set()
            await has_polled(cut_off)
            assert await read(topology) == "new"

    run(follow())


def test_primary_of_most_sentinels_wins_at_the_same_epoch(run: Run) -> None:
    async def follow() -> None:
        sentinels = [FakeSentinel(OLD, 0), FakeSentinel(NEW, 0), FakeSentinel(NEW, 0)]
        async with topology_of(sentinels) as topology:
            await becomes("new", lambda: read(topology))
            sentinels[2].answers.clear()
            await has_polled(*sentinels[:2], times=5)
            assert await read(topology) == "new"

    run(follow())


def test_hanging_sentinel_delays_neither_reads_nor_writes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sentinel._POLL_TIMEOUT", 10 * PATIENCE)

    async def follow() -> None:
        hanging = FakeSentinel(OLD, 0)
        hanging.answers.clear()
        async with topology_of([hanging, FakeSentinel(OLD, 0), FakeSentinel(OLD, 0)]) as topology:
            async with asyncio.timeout(PATIENCE):
                assert (await read(topology), await write(topology)) == ("old", "old")

    run(follow())


def test_write_without_a_majority_sends_nothing_and_reads_continue(run: Run) -> None:
    async def follow() -> None:
        sentinels = [FakeSentinel(OLD, 0) for _ in range(3)]
        servers: list[FakeServer] = []

        def connections_to(host_port: HostPort, on_connect: PipelineWork[None]) -> ServerConnections:
            servers.append(FakeServer(host_port, on_connect))
            return servers[-1]

        async with topology_of(sentinels, connections_to=connections_to) as topology:
            assert await write(topology) == "old"
            for each in sentinels[1:]:
                each.answers.clear()
            await becomes("2 of 3 sentinels must confirm the primary, 1 did", lambda: outcome(topology))
            used = servers[0].used
            assert await outcome(topology) != "old"
            assert servers[0].used == used
            sentinels[0].answers.clear()
            await becomes("2 of 3 sentinels must confirm the primary, 0 did", lambda: outcome(topology))
            assert await read(topology) == "old"
            for each in sentinels[1:]:
                each.answers.set()
            await becomes("old", lambda: outcome(topology))

    run(follow())


def test_refused_write_names_no_failure_of_a_sentinel_that_answers_again(run: Run) -> None:
    async def disagree() -> None:
        sentinels = [FakeSentinel(OLD, 0) for _ in range(3)]
        sentinels[1].answers.clear()
        async with topology_of(sentinels) as topology:
            assert await write(topology) == "old"
            await has_polled(sentinels[0])
            sentinels[1].answers.set()
            sentinels[1].primary, sentinels[2].primary = NEW, OTHER
            await becomes("2 of 3 sentinels must confirm the primary, 1 did", lambda: outcome(topology))
            await has_polled(*sentinels)
            with pytest.raises(StoreConnectionError) as raised:
                await write(topology)
            assert raised.value.__cause__ is None

    run(disagree())


def test_quorum_any_writes_while_no_sentinel_answers(run: Run) -> None:
    async def follow() -> None:
        sentinels = [FakeSentinel(OLD, 0) for _ in range(3)]
        async with topology_of(sentinels, "any") as topology:
            assert await write(topology) == "old"
            for each in sentinels:
                each.answers.clear()
            await has_polled(*sentinels, times=4)
            assert await write(topology) == "old"

    run(follow())


@pytest.mark.parametrize("replicas", [1, None, [[b"ip"]], [[b"ip", b"a"]], [[b"ip", b"a", b"port", b"x"]]])
def test_sentinel_with_unusable_replicas_lists_none(run: Run, replicas: object) -> None:
    class OddSentinel(FakeSentinel):
        async def _reply(self, *commands: Command, errors: bool = False) -> list[Any]:
            return [replicas] if commands[0][1] == "REPLICAS" else await super()._reply(*commands)

    async def list_servers() -> None:
        async with topology_of([OddSentinel(OLD, 0)]) as topology:
            servers, replicas = await topology.servers()
            assert (len(servers), replicas) == (1, [])

    run(list_servers())


def test_sentinel_that_is_listed_twice_counts_once() -> None:
    sentinels = sentinels_at(Address.parse("redis+sentinel://a,b:26379,a/oms"))
    assert [each.name for each in sentinels] == ["a:26379", "b:26379"]


def test_write_after_a_stall_waits_for_a_new_confirmation(run: Run) -> None:
    async def stall() -> None:
        sentinels = [FakeSentinel(OLD, 0) for _ in range(3)]
        async with topology_of(sentinels) as topology:
            assert await write(topology) == "old"
            for each in sentinels:
                each.primary, each.epoch = NEW, 1
            asyncio.get_running_loop().call_soon(time.sleep, 1)  # longer than any answer counts
            await asyncio.sleep(0)
            assert await write(topology) == "new"

    run(stall())


def test_write_that_waited_for_a_connection_is_confirmed_again(run: Run) -> None:
    async def wait() -> None:
        sentinels = [FakeSentinel(OLD, 0) for _ in range(3)]

        class BusyServer(FakeServer):
            async def run(
                self, key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False
            ) -> T:
                for each in sentinels[1:]:
                    each.answers.clear()
                await has_polled(sentinels[0], times=5)
                return await super().run(key, work)

        async with topology_of(sentinels, connections_to=BusyServer) as topology:
            assert await outcome(topology) == "2 of 3 sentinels must confirm the primary, 1 did"

    run(wait())


def test_sentinels_set_up_again_are_not_followed_but_reported(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> None:
        sentinels = [FakeSentinel(NEW, 5) for _ in range(3)]
        async with topology_of(sentinels) as topology:
            assert await write(topology) == "new"
            for each in sentinels:
                each.primary, each.epoch = OTHER, 0
            reason = (
                "2 of 3 sentinels must confirm the primary, 0 did; they know only earlier failovers: if they were set "
                "up again, restart the service"
            )
            await becomes(reason, lambda: outcome(topology))
            assert await read(topology) == "new"
            await has_polled(*sentinels, times=2)
            for each in sentinels:
                each.epoch = 6
            await becomes("other", lambda: outcome(topology))

    with caplog.at_level(logging.WARNING):
        run(follow())
    assert [each.message for each in caplog.records] == ["sentinels know only earlier failovers", "another primary"]


def test_replica_that_sentinels_name_is_refused(run: Run, tmp_path: Path, tenant: str) -> None:
    primary = Node(tmp_path / "primary")
    replica = Node(tmp_path / "replica", (("replicaof", f"127.0.0.1 {primary.port}"),))

    async def refuse() -> None:
        sentinels = [FakeSentinel(("127.0.0.1", replica.port), 0) for _ in range(3)]
        async with topology_of(sentinels, connections_to=real_server) as topology:
            store = RedisStore(topology, PATIENCE, 10)
            for operation in (store.current(tenant), store.ping(), store.change(tenant, True, AUTHOR)):
                with pytest.raises(StoreError) as raised:
                    await operation
                assert str(raised.value.__cause__) == "the server that the sentinels name is a replica"
            with pytest.raises(StoreError):
                async with store.announcements():
                    pass
            assert replica.ask("REPLICAOF", "NO", "ONE") == "OK"
            assert await store.change(tenant, True, AUTHOR) == Setting(enabled=True, version=1)

    primary.start()
    replica.start()
    try:
        run(refuse())
    finally:
        primary.stop()
        replica.stop()


def test_server_that_forbids_role_is_used(run: Run, tmp_path: Path, tenant: str) -> None:
    server = Node(tmp_path / "server")

    async def use() -> None:
        sentinels = [FakeSentinel(("127.0.0.1", server.port), 0) for _ in range(3)]
        async with topology_of(sentinels, connections_to=real_server) as topology:
            assert await RedisStore(topology, PATIENCE, 10).current(tenant) == NEVER_SET
        assert "errorstat_NOPERM:count=1" in server.ask("INFO", "errorstats")

    server.start()
    server.ask("ACL", "SETUSER", "default", "-role")
    try:
        run(use())
    finally:
        server.stop()


def real_server(host_port: HostPort, on_connect: PipelineWork[None]) -> ServerConnections:
    return ServerConnections.to(f"redis://127.0.0.1:{host_port[1]}/0", on_connect=on_connect)


def test_lookup_without_a_majority_is_an_unknown_outcome(run: Run, tmp_path: Path, tenant: str) -> None:
    """The worker is cut off after EXEC: nothing confirms that the server with the change is still the primary."""
    server = Node(tmp_path / "server")

    async def lose_reply() -> None:
        sentinels = [FakeSentinel(("127.0.0.1", server.port), 0) for _ in range(3)]

        class CutOff(FakeServer):
            async def run(
                self, key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False
            ) -> T:
                result = await connections.run(key, work, fresh=fresh)
                if not fresh:
                    sentinels[1].answers.clear()
                    sentinels[2].answers.clear()
                    await has_polled(sentinels[0], times=5)
                    raise ConnectionError
                return result

        connections = real_server(sentinels[0].primary, no_work)
        async with topology_of(sentinels, connections_to=CutOff) as topology:
            with pytest.raises(OutcomeUnknown) as raised:
                await RedisStore(topology, PATIENCE, 10).change(tenant, True, AUTHOR)
            assert str(raised.value.__cause__) == "2 of 3 sentinels must confirm the primary, 1 did"
        await connections.close()

    server.start()
    try:
        run(lose_reply())
    finally:
        server.stop()


async def no_work(_pipeline: Pipeline) -> None:
    pass


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[SentinelStore]:
    with sentinel_store(tmp_path) as store:
        yield store


def test_minority_of_sentinels_stops_writes_until_the_majority_returns(
    tmp_path: Path, replicated: SentinelStore, tenant: str
) -> None:
    with (
        Service(tmp_path / "log", replicated.url, REDIS_TIMEOUT="10") as service,
        Service(tmp_path / "any.log", replicated.url, REDIS_TIMEOUT="10", REDIS_SENTINEL_QUORUM="any") as careless,
    ):
        client, other = service.client(make_token(tenant)), careless.client(make_token(f"{tenant}-any"))
        for each in (client, other):
            assert eventually(lambda each=each: each.post({"enabled": True}).status == 200)  # type: ignore[misc]
        for sentinel in replicated.sentinels[:2]:
            sentinel.signal(signal.SIGSTOP)
        assert eventually(lambda: client.post({"enabled": True}).status == 500)
        assert client.post({"enabled": False}).status == 500
        assert client.get().headers["etag"] == '"1"'
        assert other.post({"enabled": False}).headers["etag"] == '"2"'
        for sentinel in replicated.sentinels[:2]:
            sentinel.signal(signal.SIGCONT)
        assert eventually(lambda: client.post({"enabled": False}).status == 200)
        assert client.get().headers["etag"] == '"2"'
    assert "2 of 3 sentinels must confirm the primary" in service.log
    assert "Traceback" not in service.log


def test_sentinels_with_a_login_need_only_the_documented_permissions(
    run: Run, replicated: SentinelStore, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.sentinel._POLL_TIMEOUT", PATIENCE)
    for each in replicated.sentinels:
        allowed = ("+sentinel|master", "+sentinel|get-master-addr-by-name", "+sentinel|replicas")
        each.ask("ACL", "SETUSER", "oms", "on", ">hunter2", "-@all", *allowed)
        each.ask("ACL", "SETUSER", "default", "off")

    async def change(password: str) -> Setting:
        address = Address.parse(replicated.url)
        topology = connect(replace(address, sentinel_username="oms", sentinel_password=password))
        store = RedisStore(topology, PATIENCE, 10)
        try:
            servers, replicas = await topology.servers()
            assert (len(servers), len(replicas)) == (1, 1)
            return await store.change(tenant, True, AUTHOR)
        finally:
            await store.close()

    assert run(change("hunter2")).version == 1
    with pytest.raises(StoreConnectionError) as raised:
        run(change("hunter3"))
    assert "invalid username-password pair" in str(raised.value.__cause__)
    assert "hunter" not in str(raised.value.__cause__)
