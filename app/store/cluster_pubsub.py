"""Subscriptions to a channel on every node of a cluster, merged into one stream.

Redis forwards a published message to the other nodes over the cluster bus. The bus is best effort and reports no loss.
We therefore subscribe to each node and receive its own messages directly.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from typing import Final

from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import StoreConnectionError
from app.store.redis_url import HostPort

_log = logging.getLogger(__name__)

# In seconds: the pause before a new attempt on one node, and the interval of the check for added and removed nodes.
_RETRY_DELAY: Final = 0.5
_NODE_CHECK_INTERVAL: Final = 1.0
_MAX_MESSAGES: Final = 1000


class ClusterSubscriptions:
    """One subscription per node, merged into one stream. Each node's subscription is renewed independently.

    Subscribing to one node takes at most `limit` seconds. `on_loss` is called when a node fails and at each check for
    new nodes. The caller must call `close`.
    """

    def __init__(
        self, channel: str, limit: float, node: Callable[[HostPort], ServerConnections], on_loss: Callable[[], object]
    ) -> None:
        self._channel = channel
        self._limit = limit
        self._node = node
        self._on_loss = on_loss
        self._queue = asyncio.Queue[bytes | None](_MAX_MESSAGES)
        self._first_attempts: dict[HostPort, asyncio.Future[bool]] = {}
        self._tasks: dict[HostPort, asyncio.Task[None]] = {}

    def set_nodes(self, nodes: AbstractSet[HostPort]) -> None:
        """Start subscriptions to new `nodes` and end those to nodes that are not in it."""
        for node in nodes - self._tasks.keys():
            self._first_attempts[node] = asyncio.get_running_loop().create_future()
            self._tasks[node] = asyncio.create_task(self._stay_subscribed(node))
        for node in self._tasks.keys() - nodes:
            self._tasks.pop(node).cancel()

    async def wait_for_first_attempts(self) -> None:
        """Return once each node was tried. Raises ConnectionError if no subscription succeeded."""
        if not any(await asyncio.gather(*self._first_attempts.values())):
            raise StoreConnectionError("no node accepted a subscription")

    async def messages(self, current_nodes: Callable[[], AbstractSet[HostPort]]) -> AsyncIterator[bytes | None]:
        """Yield the messages of all nodes; None if some may have been missed on a node.

        The set of nodes follows `current_nodes`, which is called once a second.
        """
        loop = asyncio.get_running_loop()
        next_check = loop.time() + _NODE_CHECK_INTERVAL
        while True:
            try:
                async with asyncio.timeout_at(next_check):
                    message = await self._queue.get()
            except TimeoutError:
                self._on_loss()
                self.set_nodes(current_nodes())
                next_check = loop.time() + _NODE_CHECK_INTERVAL
            else:
                yield message

    def close(self) -> None:
        """End all subscriptions."""
        self.set_nodes(set())

    async def _stay_subscribed(self, node: HostPort) -> None:
        first_attempt = self._first_attempts[node]
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
                self._on_loss()
            await asyncio.sleep(_RETRY_DELAY)
