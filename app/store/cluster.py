"""The nodes of a cluster, each with its slots."""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, Final, Self, cast

from app.store.address import HostPort
from app.store.cluster_pubsub import ClusterSubscriptions
from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import Command, Pipeline, PipelineWork, T, driver_errors, key_slot

# How often work is begun again for one caller, and after how many seconds where its slot is between two nodes.
_MAX_TURNS: Final = 8
_BETWEEN: Final = 0.05
# In seconds: how long a node may take to tell the slots, and how long nobody is asked again.
_PATIENCE: Final = 0.25
_REST: Final = 0.5


class ClusterTopology:
    """The `Topology` of a cluster: each key at the node that has its slot.

    The slots are asked for at first use, at `places`, and again, in the background and twice a second at the most,
    when a node cannot be reached; a slot that has moved is noted as the node says so. Each node has connections of its
    own, so that none waits for another. `at` makes connections to a node.
    """

    def __init__(self, places: Sequence[HostPort], at: Callable[[HostPort], ServerConnections]) -> None:
        self._places = places
        self._at = at
        self._nodes: dict[HostPort, ServerConnections] = {}
        self._slots = _SlotMap([])
        self._refreshing: asyncio.Task[None] | None = None
        self._trouble: Exception | None = None  # of the node that was asked last in vain
        self._rested = 0.0  # by the loop's clock: when the nodes may be asked again

    async def read(self, key: str, limit: float) -> bytes | None:
        """See `Topology`."""

        async def get(pipeline: Pipeline) -> bytes | None:
            (value,) = await pipeline(("GET", key))
            return cast(bytes | None, value)

        def read(node: ServerConnections, *, asking: bool) -> Awaitable[bytes | None]:
            return node.run(key, _asking(get)) if asking else node.read(key, limit)

        async with asyncio.timeout(limit):
            return await self._at_owner(key, read)

    async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False) -> T:
        """See `Topology`."""

        def run(node: ServerConnections, *, asking: bool) -> Awaitable[T]:
            return node.run(key, _asking(work) if asking else work, fresh=fresh)

        return await (self._anywhere(work) if key is None else self._at_owner(key, run))

    async def _at_owner(self, key: str, work: Callable[..., Awaitable[T]]) -> T:
        """What `work` has from the node that has `key`, though it may move meanwhile."""
        place, asking = await self._place_of(key), False
        for _ in range(_MAX_TURNS):
            try:
                return await work(self._node(place), asking=asking)
            except driver_errors.MovedError as moved:
                place, asking = (moved.host or place[0], moved.port), False
                self._slots.moved[moved.slot_id] = place
            except driver_errors.AskError as ask:
                place, asking = (ask.host or place[0], ask.port), True
            except driver_errors.TryAgainError:
                await asyncio.sleep(_BETWEEN)
            except DRIVER_ERRORS:
                self._refresh()
                raise
            except asyncio.CancelledError:
                self._refresh()  # the limit of time: the node may hang
                raise
        raise ConnectionError("the nodes do not agree on who has the key")

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        """See `Topology`."""
        await self._learn()
        return [self._node(place) for place in sorted(self._slots.places)], []

    @contextlib.asynccontextmanager
    async def subscribe(self, channel: str, limit: float) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """See `Topology`: on each node that has slots. Where one is lost, the others go on."""
        async with asyncio.timeout(limit):
            await self._place_of("")
        subscriptions = ClusterSubscriptions(channel, limit, self._node, self._refresh)
        try:
            subscriptions.follow(self._slots.places)
            await subscriptions.begun()
            yield subscriptions.messages(lambda: self._slots.places)
        finally:
            subscriptions.close()

    async def _anywhere(self, work: PipelineWork[T]) -> T:
        """Tries one node after the other: while one works, the store does."""
        trouble: Exception | None = None
        for place in dict.fromkeys([*self._slots.places, *self._places]):
            try:
                async with asyncio.timeout(_PATIENCE):
                    return await self._node(place).run(None, work)
            except DRIVER_ERRORS as error:
                trouble = error
        raise ConnectionError("no node answers") from trouble

    async def close(self) -> None:
        """See `Topology`."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    def _node(self, place: HostPort) -> ServerConnections:
        if place not in self._nodes:
            self._nodes[place] = self._at(place)
        return self._nodes[place]

    async def _learn(self) -> None:
        """Has the slots told where they are not known yet."""
        if not self._slots.places:
            await asyncio.shield(self._refresh())
        if not self._slots.places:
            raise ConnectionError("no node tells its slots") from self._trouble

    async def _place_of(self, key: str) -> HostPort:
        await self._learn()
        place = self._slots.place_of(key_slot(key.encode()))
        if place is None:
            self._refresh()
            raise ConnectionError("no node has the key")
        return place

    def _refresh(self) -> asyncio.Task[None]:
        """Has the slots asked for again, unless they were just now. Done when they were."""
        now = asyncio.get_running_loop().time()
        if self._refreshing is None or (self._refreshing.done() and now >= self._rested):
            self._refreshing = asyncio.create_task(self._ask())
        return self._refreshing

    async def _ask(self) -> None:
        """Asks one node after the other for the slots, until one tells them; first those that have some."""
        for place in dict.fromkeys([*self._slots.places, *self._places]):
            try:
                async with asyncio.timeout(_PATIENCE):
                    (ranges,) = await self._node(place).run(None, lambda pipeline: pipeline(("CLUSTER", "SLOTS")))
            except DRIVER_ERRORS as error:
                self._trouble = error
                continue
            if ranges:
                self._slots = _SlotMap.told(ranges, by=place[0])
                break
        self._rested = asyncio.get_running_loop().time() + _REST


class _SlotMap:
    """Who has which slot: ranges, and slots that have `moved` since."""

    def __init__(self, ranges: Sequence[tuple[int, int, HostPort]]) -> None:
        self._ranges = sorted(ranges)
        self.moved: dict[int, HostPort] = {}
        self.places = frozenset(place for _, _, place in ranges)

    @classmethod
    def told(cls, ranges: Sequence[Any], by: str) -> Self:
        """The reply to CLUSTER SLOTS. A node that knows no name of its own is the one that was asked."""
        return cls(
            [(first, last, (host.decode() if host else by, port)) for first, last, (host, port, *_), *_ in ranges]
        )

    def place_of(self, slot: int) -> HostPort | None:
        """The node that has `slot`; None where none has."""
        if slot in self.moved:
            return self.moved[slot]
        index = bisect_right(self._ranges, slot, key=itemgetter(0)) - 1
        if index < 0:
            return None
        _, last, place = self._ranges[index]
        return place if slot <= last else None


def _asking(work: PipelineWork[T]) -> PipelineWork[T]:
    """The same work at a node that does not have the slot yet, but takes what is asked of it: each command says so.

    Inside a transaction MULTI says it for all.
    """

    async def asking(pipeline: Pipeline) -> T:
        async def asked(*commands: Command, errors: bool = False) -> list[Any]:
            prefixed: list[Command] = []
            in_multi = False
            for command in commands:
                if not in_multi:
                    prefixed.append(("ASKING",))
                in_multi = (in_multi or command[0] == "MULTI") and command[0] != "EXEC"
                prefixed.append(command)
            replies = await pipeline(*prefixed, errors=errors)
            return [reply for reply, command in zip(replies, prefixed, strict=True) if command != ("ASKING",)]

        return await work(asked)

    return asking
