"""What the nodes of a cluster announce, merged.

A message is published at the node that has its key, and would reach the other nodes over the cluster's bus. The bus is
best effort: what it loses, no node tells anybody. So each node is listened to, and says itself what it announces.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from typing import Final

from app.store.address import HostPort
from app.store.connections import DRIVER_ERRORS, ServerConnections

_log = logging.getLogger(__name__)

# In seconds: how long a node that was lost is left alone, and how often nodes that are new are looked for.
_REST: Final = 0.5
_LOOK_AROUND: Final = 1.0
_MAX_MESSAGES: Final = 1000


class ClusterSubscriptions:
    """One for each node, merged; each is tried again for itself."""

    def __init__(
        self, channel: str, limit: float, node: Callable[[HostPort], ServerConnections], on_loss: Callable[[], object]
    ) -> None:
        self._channel = channel
        self._limit = limit
        self._node = node
        self._on_loss = on_loss
        self._queue = asyncio.Queue[bytes | None](_MAX_MESSAGES)
        self._tried: dict[HostPort, asyncio.Future[bool]] = {}
        self._tasks: dict[HostPort, asyncio.Task[None]] = {}

    def follow(self, places: AbstractSet[HostPort]) -> None:
        """Has a subscription at each of `places`, and at no other."""
        for place in places - self._tasks.keys():
            self._tried[place] = asyncio.get_running_loop().create_future()
            self._tasks[place] = asyncio.create_task(self._stay_subscribed(place))
        for place in self._tasks.keys() - places:
            self._tasks.pop(place).cancel()

    async def begun(self) -> None:
        """Returns once each was tried. Raises ConnectionError where none succeeded."""
        if not any(await asyncio.gather(*self._tried.values())):
            raise ConnectionError("no node takes a subscription")

    async def messages(self, places: Callable[[], AbstractSet[HostPort]]) -> AsyncIterator[bytes | None]:
        """What comes on all of them; None where one was lost or is there again. Follows `places` as they change."""
        loop = asyncio.get_running_loop()
        look_around = loop.time() + _LOOK_AROUND
        while True:
            try:
                async with asyncio.timeout_at(look_around):
                    message = await self._queue.get()
            except TimeoutError:
                self._on_loss()
                self.follow(places())
                look_around = loop.time() + _LOOK_AROUND
            else:
                yield message

    def close(self) -> None:
        """Ends all of them."""
        self.follow(set())

    async def _stay_subscribed(self, place: HostPort) -> None:
        tried = self._tried[place]
        is_lost = False
        while True:
            try:
                async with self._node(place).subscribe(self._channel, self._limit) as messages:
                    if not tried.done():
                        tried.set_result(True)
                    await self._queue.put(None)  # what it announced before went unheard
                    is_lost = False
                    async for message in messages:
                        await self._queue.put(message)
            except DRIVER_ERRORS as error:
                if not is_lost:
                    extra = {"node": f"{place[0]}:{place[1]}", "cause": str(error)}
                    _log.warning("a node announces nothing", extra=extra)
                    await self._queue.put(None)
                is_lost = True
                if not tried.done():
                    tried.set_result(False)
                self._on_loss()
            await asyncio.sleep(_REST)
