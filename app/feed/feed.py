"""Changes as they happen, for any number of listeners: one subscription to the store, whoever listens to what.

What the store announces is only that a tenant's setting has changed. What the change was is read from the history, once
for all who listen to that tenant, so that nobody is told what is not stored, and a lost announcement loses no change.

topic     one tenant's changes, read once for all who are told of them
listener  one who is told, at a pace of its own
trouble   what those who wait, and the log, learn of a failure
"""

import asyncio
import logging
from typing import Final

from app.errors import StoreError
from app.feed.failures import cause, fail
from app.feed.subscriber import Subscriber
from app.feed.topic import Topic
from app.store import Store

__all__ = ["Feed", "Subscriber"]

_log = logging.getLogger(__name__)

# Of how many tenants the changes are read at a time after the subscription was lost.
_READINGS: Final = 8


class Feed:
    """What listeners of one worker are told. It holds a subscription while there are any.

    All times are in seconds. A listener is let in within `limit`, or not at all. A subscription that is lost is asked
    for again every `retry`; listeners are sent away when that fails for `patience`.
    """

    def __init__(self, store: Store, *, limit: float = 1.5, retry: float = 0.25, patience: float = 15.0) -> None:
        self._store = store
        self._limit = limit
        self._retry = retry
        self._patience = patience
        self._topics: dict[str, Topic] = {}
        self._subscription: asyncio.Task[None] | None = None
        self._subscribed: asyncio.Future[None]

    async def subscribe(self, tenant: str, after: int | None) -> Subscriber:
        """A listener to the changes of `tenant` after the version `after`, or, if that is None, to what stands first.

        Raises StoreError where the store does not say what stands. The caller has to end the listener.
        """
        if tenant not in self._topics:
            self._topics[tenant] = Topic(tenant, self._store)
        topic = self._topics[tenant]
        subscriber = Subscriber(topic, self._leave)
        topic.subscribers.add(subscriber)
        try:
            async with asyncio.timeout(self._limit):
                await asyncio.shield(self._subscribe())
                await asyncio.shield(topic.read())
                await subscriber.begin(after)
        except TimeoutError as error:
            subscriber.end()
            raise StoreError("the store does not say in time what stands") from error
        except BaseException:
            subscriber.end()
            raise
        if subscriber.has_ended:
            raise StoreError("the store cannot be listened to")
        return subscriber

    def _leave(self, subscriber: Subscriber) -> None:
        """Called by a listener that has ended."""
        topic = subscriber.topic
        topic.subscribers.discard(subscriber)
        if not topic.subscribers and self._topics.get(topic.tenant) is topic:
            del self._topics[topic.tenant]
        if not self._topics and self._subscription is not None:
            fail(self._subscribed, StoreError("nobody listens any more"))
            self._subscription.cancel()
            self._subscription = None

    async def close(self) -> None:
        """Ends all listeners, and with the last of them the subscription."""
        subscription = self._subscription
        self._end_all()
        if subscription is not None:
            await asyncio.wait([subscription])

    def _end_all(self) -> None:
        for topic in list(self._topics.values()):
            topic.end()

    def _subscribe(self) -> asyncio.Future[None]:
        """Done once the store announces changes; fails with StoreError where this attempt fails."""
        if self._subscription is None:
            self._subscribed = asyncio.get_running_loop().create_future()
            self._subscription = asyncio.create_task(self._stay_subscribed())
        return self._subscribed

    async def _stay_subscribed(self) -> None:
        try:
            await self._follow_announcements()
        except Exception:
            _log.exception("changes are not announced")
        finally:
            # Not where it was cancelled: then there may be new listeners, and a new subscription.
            if self._subscription is asyncio.current_task():
                fail(self._subscribed, StoreError("the store announces no changes"))
                self._end_all()

    async def _follow_announcements(self) -> None:
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while loop.time() < lost_at + self._patience:
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
                _log.warning("changes are not announced", extra={"cause": cause(error)})
                if self._subscribed.done():
                    lost_at = loop.time()
                fail(self._subscribed, error)
            self._subscribed = loop.create_future()
            await asyncio.sleep(self._retry)

    async def _catch_up(self) -> None:
        """Reads what was announced while nobody heard it; what is announced now waits for so long."""
        topics = list(self._topics.values())
        for first in range(0, len(topics), _READINGS):
            await asyncio.wait([topic.read() for topic in topics[first : first + _READINGS]])
