"""Changes as they happen, for any number of listeners: one subscription to the store, whoever listens to what.

What the store announces is only that a tenant's setting has changed. What the change was is read from the history, once
for all who listen to that tenant, so that nobody is told what is not stored, and a lost announcement loses no change.
"""

import asyncio
import logging
from typing import Final

from app.errors import StoreError
from app.model import Change, Event, version_of
from app.store import Store

_log = logging.getLogger(__name__)

# How many changes are read at a time, and of how many tenants at a time after the subscription was lost.
_PAGE: Final = 100
_READINGS: Final = 8
# With so many waiting, a listener is told no more: it reads the rest in the history, a page at a time.
_MAX_WAITING: Final = 16


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
        self._topics: dict[str, _Topic] = {}
        self._subscription: asyncio.Task[None] | None = None
        self._subscribed: asyncio.Future[None]

    async def listen(self, tenant: str, after: int | None) -> "Listener":
        """A listener to the changes of `tenant` after the version `after`, or, if that is None, to what stands first.

        Raises StoreError where the store does not say what stands. The caller has to end the listener.
        """
        if tenant not in self._topics:
            self._topics[tenant] = _Topic(tenant, self._store)
        topic = self._topics[tenant]
        listener = Listener(self, topic)
        topic.listeners.add(listener)
        try:
            async with asyncio.timeout(self._limit):
                await asyncio.shield(self._subscribe())
                await asyncio.shield(topic.read())
                await listener.begin(after)
        except TimeoutError as error:
            listener.end()
            raise StoreError("the store does not say in time what stands") from error
        except BaseException:
            listener.end()
            raise
        if listener.has_ended:
            raise StoreError("the store cannot be listened to")
        return listener

    def leave(self, listener: "Listener", topic: "_Topic") -> None:
        """Called by a listener that has ended."""
        topic.listeners.discard(listener)
        if not topic.listeners and self._topics.get(topic.tenant) is topic:
            del self._topics[topic.tenant]
        if not self._topics and self._subscription is not None:
            _fail(self._subscribed, StoreError("nobody listens any more"))
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
                _fail(self._subscribed, StoreError("the store announces no changes"))
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
                _log.warning("changes are not announced", extra={"cause": _cause(error)})
                if self._subscribed.done():
                    lost_at = loop.time()
                _fail(self._subscribed, error)
            self._subscribed = loop.create_future()
            await asyncio.sleep(self._retry)

    async def _catch_up(self) -> None:
        """Reads what was announced while nobody heard it; what is announced now waits for so long."""
        topics = list(self._topics.values())
        for first in range(0, len(topics), _READINGS):
            await asyncio.wait([topic.read() for topic in topics[first : first + _READINGS]])


class _Topic:
    """What the listeners of one tenant have in common: the newest change that they were told of."""

    def __init__(self, tenant: str, store: Store) -> None:
        self.tenant = tenant
        self.listeners: set[Listener] = set()
        self.newest: Change | None = None
        self._store = store
        self._is_known = False
        self._wanted: asyncio.Future[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    def read(self) -> asyncio.Future[None]:
        """Done once the listeners have been told of all that was stored when this was called."""
        if self._wanted is None:
            self._wanted = asyncio.get_running_loop().create_future()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
        return self._wanted

    def end(self) -> None:
        """Ends all listeners."""
        for listener in list(self.listeners):
            listener.end()

    async def after(self, version: int, heard: Change | None = None) -> list[Change] | None:
        """The next changes after `version`, oldest first.

        None where the history does not reach back that far, or where `version` is not the change that was `heard`.
        """
        page = await self._page(version)
        if version == 0 and not page:
            if await self.latest() is None:
                return []
            page = await self._page(version)  # the first change may have been made in between
        stands = [change for change in page if version_of(change) == version]
        changes = [change for change in reversed(page) if version_of(change) > version]
        if (stands and heard not in (None, stands[0])) or (changes and version_of(changes[0]) != version + 1):
            return None
        return changes if changes or stands else None

    async def _page(self, version: int) -> list[Change]:
        """The change that led to `version`, and so many after it, newest first."""
        return await self._store.history(self.tenant, _PAGE + 1, version + _PAGE + 1)

    async def latest(self) -> Change | None:
        """The change that stands; None where there was none."""
        newest = await self._store.history(self.tenant, 1)
        return newest[0] if newest else None

    async def _read(self) -> None:
        while self._wanted is not None:
            done, self._wanted = self._wanted, None
            try:
                await self._tell()
            except Exception as error:
                # Nobody goes on listening to what nobody reads, whatever the reason.
                unforeseen = None if isinstance(error, StoreError) else error
                extra = {"tenant": self.tenant, "cause": _cause(error)}
                _log.warning("listeners sent away", extra=extra, exc_info=unforeseen)
                for waiting in (done, self._wanted):
                    if waiting is not None:
                        _fail(waiting, error)
                self._wanted = None
                self.end()
            else:
                done.set_result(None)
        self._reader = None

    async def _tell(self) -> None:
        """Tells the listeners what they have not been told yet."""
        if not self._is_known:
            self.newest, self._is_known = await self.latest(), True
            return
        changes = await self.after(version_of(self.newest), self.newest)
        while changes:
            for change in changes:
                self.newest = change
                for listener in self.listeners:
                    listener.tell(change)
            changes = await self.after(version_of(self.newest), self.newest) if len(changes) == _PAGE else []
        if changes is None:
            self.newest = await self.latest()
            for listener in self.listeners:
                listener.reset(self.newest)


class Listener:
    """An asynchronous iterator over what one listener is told. A wait for the next event may be cancelled."""

    __slots__ = ("_ended", "_events", "_feed", "_topic", "_version", "_waiter")

    def __init__(self, feed: Feed, topic: _Topic) -> None:
        self._feed = feed
        self._topic = topic
        self._version = -1  # of the last event; none yet
        self._events: list[Event] = []
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises StoreError where the history cannot be read; ends where the listener has ended."""
        while not self._ended:
            if self._events:
                return self._events.pop(0)
            if self._version < version_of(self._topic.newest):
                await self._catch_up()
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        raise StopAsyncIteration

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is told."""
        return self._ended

    async def begin(self, after: int | None) -> None:
        """Has the listener begin behind the version `after`, or, if that is None, with what stands."""
        newest = self._topic.newest
        self._events.clear()
        if after is None:
            self._put(Event(newest))
        elif after > version_of(newest):
            self.reset(newest)
        else:
            self._version = after
            if after < version_of(newest):
                await self._catch_up()

    def tell(self, change: Change) -> None:
        """Tells of the change that comes next. A listener that is not there yet reads it in the history."""
        if version_of(change) == self._version + 1 and len(self._events) < _MAX_WAITING:
            self._put(Event(change))

    def reset(self, newest: Change | None) -> None:
        """Tells what stands now; the changes that led there are not known."""
        self._events.clear()
        self._put(Event(newest, is_reset=True))

    def end(self) -> None:
        """Ends the iteration; what was not heard yet is not told any more."""
        if not self._ended:
            self._ended = True
            self._feed.leave(self, self._topic)
            self._wake()

    async def _catch_up(self) -> None:
        changes = await self._topic.after(self._version)
        newest = None if changes is not None else await self._topic.latest()
        if self._events:
            return  # a reset came meanwhile, and what was read is of another past
        if changes is None:
            self.reset(newest)
        for change in changes or ():
            self._put(Event(change))
        if not changes:
            # What the topic knows is of another past: it has to find out, or this would be asked again and again.
            await asyncio.shield(self._topic.read())

    def _put(self, event: Event) -> None:
        self._version = version_of(event.change)
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # there may be nobody who waits for it


def _cause(error: Exception) -> str:
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)
