"""Subscriptions to a channel on every node of a cluster, merged into one stream.

Redis forwards a published message to the other nodes over the cluster bus. The bus is best effort and reports no loss.
We therefore subscribe to each node and receive its own messages directly.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Final

from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import StoreConnectionError
from app.store.redis_url import HostPort
from app.store.slot_map import SlotMap

_log = logging.getLogger(__name__)

_RETRY_DELAY: Final = 0.5  # in seconds, before a new attempt on one node
_MAX_MESSAGES: Final = 1000


class ClusterSubscriptions:
    """One subscription for each node with slots, merged into one stream. Each is renewed independently.

    The subscriptions follow the slot map. `next_slots` waits for its next poll. Subscribing to one node takes at most
    `limit` seconds.
    """

    def __init__(
        self,
        channel: str,
        limit: float,
        node: Callable[[HostPort], ServerConnections],
        next_slots: Callable[[], Awaitable[SlotMap]],
    ) -> None:
        self._channel = channel
        self._limit = limit
        self._node = node
        self._next_slots = next_slots
        self._queue = asyncio.Queue[bytes | None](_MAX_MESSAGES)
        self._tasks: dict[HostPort, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def open(self, slots: SlotMap) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """Subscribe to the nodes in `slots`, and yield the messages of all nodes; None if some may have been missed.

        None also follows each change of the slot map. A node that loses a slot may have announced changes that its new
        owner does not have, and the other way round. Raises StoreConnectionError if no node accepts a subscription.
        """
        first_attempts = self._set_nodes(slots.nodes)
        following = asyncio.create_task(self._follow(slots))
        try:
            if not any(await asyncio.gather(*first_attempts)):
                raise StoreConnectionError("no node accepted a subscription")
            yield self._messages()
        finally:
            following.cancel()
            self._set_nodes(set())

    async def _messages(self) -> AsyncIterator[bytes | None]:
        while True:
            yield await self._queue.get()

    def _set_nodes(self, nodes: AbstractSet[HostPort]) -> list[asyncio.Future[bool]]:
        """Subscribe to new `nodes` and end the subscriptions to others.

        Returns a future for each new node. It is done after the first attempt, and True if that succeeded.
        """
        first_attempts = []
        for node in nodes - self._tasks.keys():
            first_attempts.append(asyncio.get_running_loop().create_future())
            self._tasks[node] = asyncio.create_task(self._stay_subscribed(node, first_attempts[-1]))
        for node in self._tasks.keys() - nodes:
            self._tasks.pop(node).cancel()
        return first_attempts

    async def _follow(self, followed: SlotMap) -> None:
        while True:
            if (current := await self._next_slots()) is not followed:
                followed = current
                self._set_nodes(current.nodes)
                await self._queue.put(None)

    async def _stay_subscribed(self, node: HostPort, first_attempt: asyncio.Future[bool]) -> None:
        is_lost = False
        while True:
            try:
                async with self._node(node).subscribe(self._channel, self._limit) as messages:
                    if not first_attempt.done():
                        first_attempt.set_result(True)
                    await self._queue.put(None)  # earlier messages of this node were missed
                    is_lost = False
                    async for message in messages:
                        await self._queue.put(message)
            except Exception as error:  # any: otherwise the feed takes this node for subscribed
                if not is_lost:
                    extra = {"node": f"{node[0]}:{node[1]}", "cause": str(error)}
                    unexpected = None if isinstance(error, DRIVER_ERRORS) else error
                    _log.warning("a node announces nothing", extra=extra, exc_info=unexpected)
                    await self._queue.put(None)
                is_lost = True
                if not first_attempt.done():
                    first_attempt.set_result(False)
            await asyncio.sleep(_RETRY_DELAY)
