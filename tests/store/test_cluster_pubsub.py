"""Merged subscriptions to the nodes of a cluster, with fake nodes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from app.store.cluster_pubsub import ClusterSubscriptions
from app.store.connections import ServerConnections
from app.store.redis_url import HostPort
from app.store.slot_map import SlotMap
from tests.conftest import Run
from tests.waiting import PATIENCE

ADDRESS: HostPort = ("127.0.0.1", 6379)
OTHER: HostPort = ("127.0.0.1", 6380)
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


class SilentNode:
    """A fake node that publishes nothing."""

    @contextlib.asynccontextmanager
    async def subscribe(self, _channel: str, _limit: float) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


def subscriptions_to(node: object, next_slots: Callable[[], Awaitable[SlotMap]]) -> ClusterSubscriptions:
    return ClusterSubscriptions("x", 1.0, lambda _: cast(ServerConnections, node), next_slots)


def test_full_queue_slows_the_nodes_down_and_loses_no_message(run: Run) -> None:
    async def listen() -> None:
        node = FastPublisher()
        subscriptions = subscriptions_to(node, asyncio.Queue[SlotMap]().get)
        async with subscriptions.open(SlotMap([(0, 16383, ADDRESS)])) as messages:
            taken = -1
            while taken != node.taken:  # until the node has to wait
                taken = node.taken
                for _ in range(100):
                    await asyncio.sleep(0)
            assert 0 < taken < MESSAGES / 2
            async with asyncio.timeout(PATIENCE):
                received = [await anext(messages) for _ in range(1 + MESSAGES)]
            assert received == [None, *(b"%d" % number for number in range(MESSAGES))]

    run(listen())


def test_slot_that_moves_between_known_nodes_may_have_lost_messages(run: Run) -> None:
    async def listen() -> None:
        slots, polled = SlotMap([(0, 8191, ADDRESS), (8192, 16383, OTHER)]), asyncio.Queue[SlotMap]()
        subscriptions = subscriptions_to(SilentNode(), polled.get)
        async with subscriptions.open(slots) as messages, asyncio.timeout(PATIENCE):
            assert [await anext(messages) for _ in slots.nodes] == [None, None]  # each node is subscribed now
            next_message = asyncio.ensure_future(anext(messages))
            polled.put_nowait(slots)
            await asyncio.sleep(0)
            assert not next_message.done()
            polled.put_nowait(SlotMap([(0, 8192, ADDRESS), (8193, 16383, OTHER)]))
            assert await next_message is None

    run(listen())
