"""The nodes of a cluster that disagree, or name addresses that cannot be used, as fake nodes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, cast

import hiredis
import pytest

from app.errors import StoreError
from app.model import NEVER_SET
from app.store.cluster import ClusterTopology
from app.store.connections import ServerConnections
from app.store.pipeline import Command, PipelineWork, ResponseError, StoreConnectionError, T
from app.store.redis_store import RedisStore
from app.store.redis_url import Address, HostPort
from app.store.topology import connect
from tests.conftest import Run
from tests.waiting import PATIENCE

OLD, NEW, SECOND, THIRD = (("127.0.0.1", port) for port in (1, 2, 3, 4))
KEY = "external_oms:{a}"


class Node:
    """A fake node: names the `owner` of the slot of `KEY` at its `epoch`. Its value of each key is its port.

    None as epoch means that it rejects CLUSTER INFO.
    """

    def __init__(self, owner: HostPort, epoch: int | None, *, own_epoch: int = 1) -> None:
        self.owner = owner
        self.epoch = epoch
        self.odd_replies: dict[str, Any] = {}
        self.own_epoch = own_epoch
        self.is_reachable = True
        self.was_closed = False
        self.before_info: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    def __call__(self, address: HostPort) -> ServerConnections:
        """Return connections to this node at `address`."""
        self.address = address
        return cast(ServerConnections, self)

    async def run(self, _key: str | None, work: PipelineWork[T], *, fresh: bool = False) -> T:
        del fresh
        if not self.is_reachable:
            raise StoreConnectionError

        async def pipeline(*commands: Command, errors: bool = False) -> list[Any]:
            del errors
            return [await self._reply(command) for command in commands]

        return await work(pipeline)

    async def read(self, _key: str, _limit: float) -> bytes:
        if not self.is_reachable:
            raise StoreConnectionError
        return b"%d" % self.address[1]

    async def close(self) -> None:
        self.was_closed = True

    async def _reply(self, command: Command) -> Any:
        if command[1] in self.odd_replies:
            return self.odd_replies[str(command[1])]
        if command == ("CLUSTER", "SLOTS"):
            return [
                [0, 4095, [SECOND[0].encode(), SECOND[1], b"", []]],
                [4096, 8191, [THIRD[0].encode(), THIRD[1], b"", []]],
                [8192, 16383, [self.owner[0].encode(), self.owner[1], b"", []]],
            ]
        assert command == ("CLUSTER", "INFO")
        await self.before_info()
        if self.epoch is None:
            raise ResponseError("NOPERM")
        return b"cluster_current_epoch:%d\r\ncluster_my_epoch:%d\r\n" % (self.epoch, self.own_epoch)


class Nodes(dict[HostPort, Node]):
    """Fake nodes by address, and a topology that starts with all of them."""

    def __init__(self, *nodes: tuple[HostPort, Node]) -> None:
        super().__init__(nodes)
        self.topology = ClusterTopology(list(self), lambda address: self[address](address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.topology.close()

    async def owner(self) -> HostPort:
        """Return the node that a key is read from, after several polls."""
        with contextlib.suppress(StoreConnectionError):
            await self.topology.read(KEY, PATIENCE)
        await next_iterations()
        value = await self.topology.read(KEY, PATIENCE)
        return "127.0.0.1", int(value or 0)


async def next_iterations() -> None:
    """Let the event loop run. Fake nodes answer within a few iterations."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.cluster._POLL_INTERVAL", 0.0)


def test_node_with_the_highest_epoch_names_the_owners(run: Run) -> None:
    async def read() -> None:
        async with Nodes(*((address, Node(OLD, 7)) for address in (OLD, SECOND, THIRD)), (NEW, Node(NEW, 8))) as nodes:
            assert await nodes.owner() == NEW

    run(read())


def test_of_equal_epochs_the_winner_of_the_last_election_names_the_owners(run: Run) -> None:
    async def read() -> None:
        voters = [(address, Node(OLD, 8, own_epoch=3)) for address in (SECOND, THIRD)]
        async with Nodes((OLD, Node(OLD, 7)), *voters, (NEW, Node(NEW, 8, own_epoch=8))) as nodes:
            assert await nodes.owner() == NEW

    run(read())


def test_older_epoch_is_not_believed_while_newer_nodes_are_away(run: Run) -> None:
    async def read() -> None:
        async with Nodes(
            (OLD, Node(OLD, 7)), (SECOND, Node(NEW, 8)), (THIRD, Node(NEW, 8)), (NEW, Node(NEW, 8))
        ) as nodes:
            assert await nodes.owner() == NEW
            nodes[SECOND].is_reachable = nodes[THIRD].is_reachable = False
            assert await nodes.owner() == NEW
            nodes[NEW].is_reachable = False
            with pytest.raises(StoreConnectionError):
                await nodes.owner()

    run(read())


def test_cluster_that_was_created_again_is_followed_to_its_lower_epoch(run: Run) -> None:
    async def read() -> None:
        async with Nodes(
            (OLD, Node(NEW, 8)), (SECOND, Node(NEW, 8)), (THIRD, Node(NEW, 8)), (NEW, Node(NEW, 8))
        ) as nodes:
            assert await nodes.owner() == NEW
            for node in nodes.values():
                node.owner, node.epoch = OLD, 3
            assert await nodes.owner() == OLD

    run(read())


def test_rejected_epoch_query_does_not_prevent_a_poll(run: Run) -> None:
    async def read() -> None:
        async with Nodes(*((address, Node(OLD, None)) for address in (OLD, SECOND, THIRD, NEW))) as nodes:
            assert await nodes.owner() == OLD
            for node in nodes.values():
                node.owner = NEW
            assert await nodes.owner() == NEW

    run(read())


@pytest.mark.parametrize("info", [1, None, [b"a"], b"cluster_current_epoch:" + 5000 * b"9"])
def test_node_with_an_unusable_epoch_does_not_prevent_a_refresh(run: Run, info: object) -> None:
    async def read() -> None:
        async with Nodes(*((address, Node(NEW, 8)) for address in (OLD, SECOND, THIRD, NEW))) as nodes:
            nodes[OLD].odd_replies["INFO"] = info
            assert await nodes.owner() == NEW

    run(read())


@pytest.mark.parametrize(
    "slots",
    [
        1,
        None,
        b"ab",
        [[0, 16383]],
        [[0, 16383, b"abc"]],
        [[None, 1, [b"127.0.0.1", 1, b"id"]]],
        [[0, 16383, [1, 1, b"id"]]],
        [[0, 16383, [b"127.0.0.1", None, b"id"]]],
        [[0, 16383, [b"?", 1, b"id", [b"ip"]]]],
    ],
)
def test_node_with_unusable_slots_is_passed_over(run: Run, slots: object) -> None:
    async def read() -> None:
        async with Nodes((OLD, Node(OLD, 9)), *((each, Node(NEW, 8)) for each in (SECOND, THIRD, NEW))) as nodes:
            nodes[OLD].odd_replies["SLOTS"] = slots
            assert await nodes.owner() == NEW
            for node in nodes.values():
                node.odd_replies["SLOTS"] = slots
            assert await nodes.owner() == NEW

    run(read())


def test_all_nodes_are_asked_at_once(run: Run) -> None:
    """No node answers before the last one was asked."""

    async def read() -> None:
        async with Nodes(*((address, Node(NEW, 8)) for address in (OLD, SECOND, THIRD, NEW))) as nodes:
            barrier = asyncio.Barrier(len(nodes))
            for node in nodes.values():
                node.before_info = barrier.wait
            assert await nodes.topology.read(KEY, PATIENCE) == b"%d" % NEW[1]

    run(read())


def test_hanging_node_does_not_prevent_a_poll(run: Run) -> None:
    async def read() -> None:
        async with Nodes(*((address, Node(NEW, 8)) for address in (OLD, SECOND, THIRD, NEW))) as nodes:
            nodes[OLD].before_info = asyncio.Event().wait
            assert await nodes.topology.read(KEY, PATIENCE) == b"%d" % NEW[1]

    run(read())


def test_new_owners_are_found_although_the_old_one_answers(run: Run) -> None:
    async def read() -> None:
        async with Nodes(*((address, Node(OLD, 7)) for address in (OLD, SECOND, THIRD, NEW))) as nodes:
            assert await nodes.topology.read(KEY, PATIENCE) == b"%d" % OLD[1]
            for node in nodes.values():
                node.owner, node.epoch = NEW, 8
            async with asyncio.timeout(PATIENCE):
                while await nodes.topology.read(KEY, PATIENCE) == b"%d" % OLD[1]:
                    await next_iterations()

    run(read())


def test_connections_to_a_node_without_slots_are_closed(run: Run) -> None:
    async def read() -> None:
        async with Nodes(*((address, Node(OLD, 7)) for address in (OLD, SECOND, THIRD, NEW))) as nodes:
            assert await nodes.owner() == OLD
            for node in nodes.values():
                node.owner, node.epoch = NEW, 8
            assert await nodes.owner() == NEW
            assert nodes[OLD].was_closed

    run(read())


class RedirectingNode:
    """A fake node on a real port. It has all slots and no keys, and replies to GET with `redirects` first."""

    def __init__(self) -> None:
        self.redirects: list[str] = []
        self.host = ""
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["RedirectingNode"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                requests.feed(data)
                while request := requests.gets():
                    writer.write(self._reply(request))
        writer.close()

    def _reply(self, request: list[bytes]) -> bytes:
        match request:
            case [b"CLUSTER", b"INFO"]:
                return b"$0\r\n\r\n"
            case [b"CLUSTER", b"SLOTS"]:
                host = self.host.encode()
                node = b"*4\r\n$%d\r\n%s\r\n:%d\r\n$1\r\nx\r\n*0\r\n" % (len(host), host, self.port)
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n" + node
            case [b"GET", _] if self.redirects:
                return b"-" + self.redirects.pop().encode() + b"\r\n"
            case [b"GET", _]:
                return b"$-1\r\n"
            case _:
                return b"+OK\r\n"


@pytest.mark.parametrize("redirect", ["MOVED 1 ?:{}", "MOVED 1 :{}", "ASK 1 ?:{}"])
def test_redirect_to_an_unknown_host_means_the_host_that_was_asked(run: Run, redirect: str) -> None:
    async def read() -> None:
        async with RedirectingNode().serving() as node:
            store = RedisStore(connect(Address.parse(node.url)), PATIENCE, 10)
            node.redirects = [redirect.format(node.port)]
            assert await store.current("a") == NEVER_SET
            await store.close()

    run(read())


@pytest.mark.parametrize(
    "redirect",
    [
        "MOVED 1 a..b:6379",
        "MOVED 1 127.0.0.1:0",
        "MOVED 1 127.0.0.1:99999",
        "MOVED 1 [::1]:1",
        "MOVED 1 ::1:1",
        "MOVED 1 a/b?c#d@e:6379",
        "MOVED 1 without-port",
        "MOVED 1 two words:6379",
        "ASK 1 a..b:6379",
        "ASK 1 without-port",
    ],
)
def test_redirect_to_an_unusable_address_is_an_error_that_does_not_last(run: Run, redirect: str) -> None:
    async def read() -> None:
        async with RedirectingNode().serving() as node:
            store = RedisStore(connect(Address.parse(node.url)), PATIENCE, 10)
            assert await store.current("a") == NEVER_SET
            node.redirects = [redirect]
            with pytest.raises(StoreError):
                await store.current("a")
            await recovers(store)
            await store.close()

    run(read())


@pytest.mark.parametrize("host", ["a..b", "a/b?c#d@e", "x" * 70 + ".example"])
def test_node_with_an_unusable_host_is_an_error_that_does_not_last(run: Run, host: str) -> None:
    async def read() -> None:
        async with RedirectingNode().serving() as node:
            node.host = host
            store = RedisStore(connect(Address.parse(node.url)), PATIENCE, 10)
            with pytest.raises(StoreError):
                await store.current("a")
            node.host = "127.0.0.1"
            await recovers(store)
            await store.close()

    run(read())


async def recovers(store: RedisStore) -> None:
    """Wait until the store can be read again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(StoreError):
                assert await store.current("a") == NEVER_SET
                return
            await asyncio.sleep(0.01)
