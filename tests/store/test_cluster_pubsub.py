"""Merged subscriptions to the nodes of a cluster, with fake nodes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

from app.store.cluster_pubsub import ClusterSubscriptions
from app.store.connections import ServerConnections
from app.store.redis_url import HostPort
from tests.conftest import Run
from tests.waiting import PATIENCE

ADDRESS: HostPort = ("127.0.0.1", 6379)
MESSAGES = 5000


class FastPublisher:
    """A fake node that publishes numbers as fast as the subscriber takes them."""

    taken = 0

    @contextlib.asynccontextmanager
    async def subscribe(self, _channel: str, _limit: float) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        for number in range(MESSAGES):
            self.taken += 1
            yield b"%d" % number
        await asyncio.Event().wait()


def test_full_queue_slows_the_nodes_down_and_loses_no_message(run: Run) -> None:
    async def listen() -> None:
        node = FastPublisher()
        subscriptions = ClusterSubscriptions("x", 1.0, lambda _: cast(ServerConnections, node), lambda: None)
        subscriptions.set_nodes({ADDRESS})
        await subscriptions.wait_for_first_attempts()
        taken = -1
        while taken != node.taken:  # until the node has to wait
            taken = node.taken
            for _ in range(100):
                await asyncio.sleep(0)
        assert 0 < taken < MESSAGES / 2
        messages = subscriptions.messages(lambda: {ADDRESS})
        async with asyncio.timeout(PATIENCE):
            received = [await anext(messages) for _ in range(1 + MESSAGES)]
        assert received == [None, *(b"%d" % number for number in range(MESSAGES))]
        subscriptions.close()

    run(listen())
