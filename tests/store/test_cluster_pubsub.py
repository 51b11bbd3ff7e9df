"""The subscriptions to a cluster's nodes, merged, on nodes whose messages the test chooses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

from app.store.cluster_pubsub import ClusterSubscriptions
from app.store.connections import ServerConnections
from app.store.redis_url import HostPort
from tests.conftest import Run
from tests.waiting import PATIENCE

PLACE: HostPort = ("127.0.0.1", 6379)
MANY = 5000


class Talkative:
    """A node that announces numbers, as fast as they are taken from it."""

    taken = 0

    @contextlib.asynccontextmanager
    async def subscribe(self, _channel: str, _limit: float) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        for number in range(MANY):
            self.taken += 1
            yield b"%d" % number
        await asyncio.Event().wait()


def test_a_full_queue_holds_the_nodes_back_and_loses_nothing(run: Run) -> None:
    async def listen() -> None:
        node = Talkative()
        subscriptions = ClusterSubscriptions("x", 1.0, lambda _: cast(ServerConnections, node), lambda: None)
        subscriptions.set_nodes({PLACE})
        await subscriptions.wait_for_first_attempts()
        taken = -1
        while taken != node.taken:  # until the node is held back
            taken = node.taken
            for _ in range(100):
                await asyncio.sleep(0)
        assert 0 < taken < MANY / 2
        messages = subscriptions.messages(lambda: {PLACE})
        async with asyncio.timeout(PATIENCE):
            heard = [await anext(messages) for _ in range(1 + MANY)]
        assert heard == [None, *(b"%d" % number for number in range(MANY))]
        subscriptions.close()

    run(listen())
