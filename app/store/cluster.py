"""The topology of a Redis Cluster: finds the node for each key and follows slots that move."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

from app.store.cluster_pubsub import ClusterSubscriptions
from app.store.connections import DRIVER_ERRORS, ERROR_REPLY, ServerConnections
from app.store.pipeline import (
    AskError,
    Command,
    MovedError,
    Pipeline,
    PipelineWork,
    StoreConnectionError,
    T,
    TryAgainError,
    key_slot,
    parsing_reply_of,
)
from app.store.poller import Poller
from app.store.redis_url import HostPort
from app.store.slot_map import SlotMap, known_host, parse_epochs, parse_slots

# How often one call follows MOVED, ASK or TRYAGAIN. On TRYAGAIN it waits that many seconds first.
_MAX_REDIRECTS: Final = 8
_TRY_AGAIN_DELAY: Final = 0.05
# In seconds: the time limit for the nodes to return their epochs and for one node to return the slots.
_NODE_TIMEOUT: Final = 0.25
# In seconds: the interval of the polls. A primary that is cut off, or hangs, returns no error that could start one.
_POLL_INTERVAL: Final = 0.5


class ClusterTopology:
    """The `Topology` of a cluster: each key is on the node that has its slot.

    The slot map is loaded at first use, from `startup_nodes`, and polled twice a second from then on. A MOVED reply
    also updates one slot at once. Each node has its own connections, so that a slow node does not delay the others.
    `connections_to` makes a node's connections.

    A poll believes the node with the newest configuration of the cluster, and never returns to an older one. Otherwise
    a primary that is cut off, or not demoted yet, would keep the clients that it reaches.
    """

    def __init__(
        self, startup_nodes: Sequence[HostPort], connections_to: Callable[[HostPort], ServerConnections]
    ) -> None:
        self._startup_nodes = startup_nodes
        self._connections_to = connections_to
        self._connections: dict[HostPort, ServerConnections] = {}
        self._slots = SlotMap()
        self._last_error: Exception | None = None  # of the last node that did not return the slots
        self._poller = Poller(self._query_slots, _POLL_INTERVAL)

    async def read(self, key: str, limit: float) -> bytes | None:
        """See `Topology`."""

        async def get(pipeline: Pipeline) -> bytes | None:
            (value,) = await pipeline(("GET", key))
            return cast(bytes | None, value)

        def read(node: ServerConnections, *, asking: bool) -> Awaitable[bytes | None]:
            return node.run(key, _with_asking(get)) if asking else node.read(key, limit)

        async with asyncio.timeout(limit):
            return await self._run_on_owner(key, read)

    async def run(self, key: str, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        """See `Topology`."""

        def run(node: ServerConnections, *, asking: bool) -> Awaitable[T]:
            return node.run(key, _with_asking(work) if asking else work, fresh=fresh)

        return await self._run_on_owner(key, run)

    async def _run_on_owner(self, key: str, work: Callable[..., Awaitable[T]]) -> T:
        """Return the result of `work` on the node that has `key`, and follow the key if its slot moves meanwhile."""
        node, asking = await self._owner_of(key), False
        for _ in range(_MAX_REDIRECTS):
            try:
                return await work(self._node(node), asking=asking)
            except MovedError as moved:
                node, asking = (known_host(moved.host, node[0]), moved.port), False
                self._slots.moved[moved.slot_id] = node
            except AskError as ask:
                node, asking = (known_host(ask.host, node[0]), ask.port), True
            except TryAgainError:
                await asyncio.sleep(_TRY_AGAIN_DELAY)
        raise StoreConnectionError(f"the nodes do not agree on which one has the key, after {_MAX_REDIRECTS} redirects")

    async def check_reads(self, keys: Sequence[str]) -> None:
        """See `Topology`. Reads one key from each node in turn, until a node answers."""
        await self._load_slots()
        last_error: Exception | None = None
        for key in {self._slots.owner_of(key_slot(key.encode())): key for key in keys}.values():
            try:
                await self.read(key, _NODE_TIMEOUT)
            except DRIVER_ERRORS as error:
                last_error = error
            else:
                return
        raise StoreConnectionError("no node answers reads") from last_error

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        """See `Topology`."""
        await self._load_slots()
        return [self._node(node) for node in sorted(self._slots.nodes)], []

    @contextlib.asynccontextmanager
    async def subscribe(self, channel: str, limit: float) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """See `Topology`. Subscribes to each node that has slots. If one fails, the other subscriptions continue."""
        async with asyncio.timeout(limit):
            await self._owner_of("")
        subscriptions = ClusterSubscriptions(channel, limit, self._node, self._next_slots)
        async with subscriptions.open(self._slots) as messages:
            yield messages

    async def close(self) -> None:
        """See `Topology`."""
        self._poller.close()
        await asyncio.gather(*(node.close() for node in self._connections.values()))

    def _node(self, node: HostPort) -> ServerConnections:
        if node not in self._connections:
            self._connections[node] = self._connections_to(node)
        return self._connections[node]

    async def _load_slots(self) -> None:
        """Load the slot map if it is empty. Raises StoreConnectionError if no node returns the slots."""
        self._poller.start()
        if not self._slots.nodes:
            await self._poller.until(lambda: bool(self._slots.nodes))
        if not self._slots.nodes:
            raise StoreConnectionError("no node returned its slots") from self._last_error

    async def _owner_of(self, key: str) -> HostPort:
        await self._load_slots()
        node = self._slots.owner_of(key_slot(key.encode()))
        if node is None:
            raise StoreConnectionError("no node has the key's slot")
        return node

    async def _next_slots(self) -> SlotMap:
        """Return the slot map after the next complete poll."""
        await self._poller.until(lambda: False)
        return self._slots

    async def _query_slots(self) -> bool:
        """Query the epochs of all known nodes at once. Then ask the one with the highest epoch for the slots.

        Of several, ask the node that has made the last change: the others may not know its slots yet. If it does not
        answer, ask the next one. Returns False while the slot map is empty.
        """
        nodes = list(dict.fromkeys([*self._slots.nodes, *self._startup_nodes]))
        replies = await asyncio.gather(*(self._query_epochs(node) for node in nodes))
        epochs = {node: reply for node, reply in zip(nodes, replies, strict=True) if reply is not None}
        for node in sorted(epochs, key=epochs.__getitem__, reverse=True):
            try:
                async with asyncio.timeout(_NODE_TIMEOUT):
                    (reply,) = await self._node(node).run(None, lambda pipeline: pipeline(("CLUSTER", "SLOTS")))
                with parsing_reply_of("cluster node"):
                    slots = SlotMap(parse_slots(reply, queried_host=node[0]), epochs[node][0])
            except DRIVER_ERRORS as error:
                self._last_error = error
                continue
            if slots.nodes:
                await self._replace_slots(slots, epochs)
                break
        return bool(self._slots.nodes)

    async def _query_epochs(self, node: HostPort) -> tuple[int, int] | None:
        """Return the epochs of the cluster and of the node, 0 if the node rejects the command, None if it fails."""
        try:
            async with asyncio.timeout(_NODE_TIMEOUT):
                (info,) = await self._node(node).run(None, lambda pipeline: pipeline(("CLUSTER", "INFO")))
            with parsing_reply_of("cluster node"):
                return parse_epochs(info)
        except ERROR_REPLY:  # an ACL or a managed service
            return 0, 0
        except DRIVER_ERRORS as error:
            self._last_error = error
            return None

    async def _replace_slots(self, slots: SlotMap, epochs: Mapping[HostPort, tuple[int, int]]) -> None:
        """Use `slots` from now on, unless nothing has changed or they are older than the current ones.

        Closes the connections to nodes that have no slots any more. This aborts operations in progress: writes that a
        node still accepts after a failover are lost.
        """
        old = self._slots
        # A failover needs a majority of the nodes with slots. If a majority is behind all the same, the cluster was
        # created again, or a command skipped the election and only a lost node knew.
        behind = [node for node in old.nodes & epochs.keys() if epochs[node][0] < old.epoch]
        is_older = slots.epoch < old.epoch and len(behind) <= len(old.nodes) / 2
        if is_older or old.is_confirmed_by(slots):
            return
        self._slots = slots
        for node in (old.nodes - slots.nodes) & self._connections.keys():
            await self._connections.pop(node).close()


def _with_asking(work: PipelineWork[T]) -> PipelineWork[T]:
    """Return `work` for a node that is importing the slot: ASKING before each command makes the node accept it.

    Inside a transaction, ASKING before MULTI applies to all commands.
    """

    async def work_with_asking(pipeline: Pipeline) -> T:
        async def pipeline_with_asking(*commands: Command, errors: bool = False) -> list[Any]:
            prefixed: list[Command] = []
            in_multi = False
            for command in commands:
                if not in_multi:
                    prefixed.append(("ASKING",))
                in_multi = (in_multi or command[0] == "MULTI") and command[0] != "EXEC"
                prefixed.append(command)
            replies = await pipeline(*prefixed, errors=errors)
            return [reply for reply, command in zip(replies, prefixed, strict=True) if command != ("ASKING",)]

        return await work(pipeline_with_asking)

    return work_with_asking
