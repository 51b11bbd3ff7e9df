"""The feed: change events for all subscribers of a worker, over one subscription to the store.

An announcement from the store only says that a tenant's setting has changed. The changes themselves are read from the
history, once for all subscribers of the tenant. Subscribers therefore get only stored changes, and a lost announcement
loses no change.
"""

import asyncio
import logging
from functools import partial
from typing import Final

from app.errors import StoreError
from app.feed.outage import Outage
from app.feed.subscriber import Subscriber
from app.feed.topic import Topic, error_with_cause, fail_future
from app.model import EventId
from app.store import Store

_log = logging.getLogger(__name__)

# How many tenants' histories are read at the same time when the feed catches up, unless a read takes too long.
_CONCURRENT_READS: Final = 8


class Feed:
    """The subscribers of one worker. It keeps a subscription to the store while there is at least one subscriber.

    All times are in seconds. `limit` is the time limit of `subscribe`. If the subscription is lost, the feed tries to
    renew it every `retry`. After `max_outage` without success, it ends all subscribers. If the changes of one tenant
    cannot be read, it reads them again too. After `max_outage` without success, it ends the tenant's subscribers.
    """

    def __init__(self, store: Store, *, limit: float = 1.5, retry: float = 0.25, max_outage: float = 15.0) -> None:
        self._store = store
        self._limit = limit
        self._retry = retry
        self._max_outage = max_outage
        self._new_outage = partial(Outage, retry, max_outage)
        self._topics: dict[str, Topic] = {}
        self._subscription: asyncio.Task[None] | None = None
        self._subscribed: asyncio.Future[None]

    async def subscribe(self, tenant: str, after: EventId | None) -> Subscriber:
        """Return a subscriber to the changes of `tenant` after the event `after`.

        If `after` is None, the current setting is the first event. Raises StoreError if the store fails or the time
        limit passes. The caller must call `end` on the subscriber.
        """
        if tenant not in self._topics:
            self._topics[tenant] = Topic(tenant, self._store, self._new_outage)
        topic = self._topics[tenant]
        subscriber = Subscriber(topic, self._remove)
        topic.subscribers[subscriber] = None
        try:
            async with asyncio.timeout(self._limit):
                await asyncio.shield(self._subscribe())
                await asyncio.shield(topic.read())
                await subscriber.begin(after)
        except TimeoutError as error:
            subscriber.end()
            raise StoreError(f"the store did not return the current setting within {self._limit} s") from error
        except BaseException:
            subscriber.end()
            raise
        if subscriber.has_ended:
            raise StoreError("the store failed, or the feed was closed, while the subscriber started")
        return subscriber

    def _remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber that has ended. The last one also ends the subscription."""
        topic = subscriber.topic
        topic.subscribers.pop(subscriber, None)
        if not topic.subscribers and self._topics.get(topic.tenant) is topic:
            del self._topics[topic.tenant]
        if not self._topics and self._subscription is not None:
            fail_future(self._subscribed, StoreError("the last subscriber has ended"))
            self._subscription.cancel()
            self._subscription = None

    async def close(self) -> None:
        """End all subscribers and the subscription to the store."""
        subscription = self._subscription
        self._end_all()
        if subscription is not None:
            await asyncio.wait([subscription])

    def _end_all(self) -> None:
        for topic in list(self._topics.values()):
            topic.end()

    def _subscribe(self) -> asyncio.Future[None]:
        """Return a future that is done once the feed is subscribed. It raises StoreError if the attempt fails."""
        if self._subscription is None:
            self._subscribed = asyncio.get_running_loop().create_future()
            self._subscription = asyncio.create_task(self._stay_subscribed())
        return self._subscribed

    async def _stay_subscribed(self) -> None:
        try:
            await self._follow_announcements()
        except Exception:  # a fault of the code: the streams end, and the next subscriber starts another task
            _log.exception("changes are not announced")
        finally:
            # If `_remove` has cancelled this task, new subscribers may have started another one since.
            if self._subscription is asyncio.current_task():
                fail_future(self._subscribed, StoreError("cannot subscribe to changes of the store"))
                self._end_all()

    async def _follow_announcements(self) -> None:
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while loop.time() < lost_at + self._max_outage:
            try:
                async with self._store.announcements() as tenants:
                    self._subscribed.set_result(None)
                    await self._catch_up()
                    async for tenant in tenants:
                        if tenant is None:
                            await self._catch_up()
                        elif tenant in self._topics:
                            self._topics[tenant].read()
            except StoreError as error:
                _log.warning("changes are not announced", extra={"cause": error_with_cause(error)})
                if self._subscribed.done():
                    lost_at = loop.time()
                fail_future(self._subscribed, error)
            self._subscribed = loop.create_future()
            await asyncio.sleep(self._retry)

    async def _catch_up(self) -> None:
        """Read the changes of all topics, because announcements were missed. New announcements wait until this ends.

        Topics that cannot be read hold up the others only for `retry`.
        """
        topics = list(self._topics.values())
        for first in range(0, len(topics), _CONCURRENT_READS):
            reads = [topic.read() for topic in topics[first : first + _CONCURRENT_READS]]
            await asyncio.wait(reads, timeout=self._retry)
