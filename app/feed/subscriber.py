"""A subscriber: the change events of one event stream."""

import asyncio
from collections.abc import Callable
from typing import Final, Self

from app.errors import StoreError
from app.feed.topic import Topic
from app.model import Change, ChangeEvent, EventId, version_of

# A subscriber that is this far behind gets no more events queued. It reads the rest from the history, page by page.
MAX_QUEUED_EVENTS: Final = 16


class Subscriber:
    """An asynchronous iterator over the events of one event stream. A wait for the next event may be cancelled.

    A slow subscriber does not delay others. `on_end` is called once, when the subscriber ends. If `has_ended` is true,
    the subscriber yields no more events.
    """

    __slots__ = ("_events", "_last", "_on_end", "_outage", "_waiter", "has_ended", "topic")

    def __init__(self, topic: Topic, on_end: "Callable[[Subscriber], object]") -> None:
        self.topic = topic
        self._on_end = on_end
        self._outage = topic.new_outage()
        self._last = EventId(-1)  # of the last queued event; version -1 before the first
        self._events: list[ChangeEvent] = []
        self.has_ended = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        """Return the next event. Stops once the subscriber ended.

        Raises StoreError if the history cannot be read until the outage has lasted too long.
        """
        while not self.has_ended:
            if self._events:
                return self._events.pop(0)
            if self._last.version < version_of(self.topic.newest):
                await self._catch_up_or_pause()
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        raise StopAsyncIteration

    async def begin(self, after: EventId | None) -> None:
        """Start after the event `after`. If it is None, the current setting is the first event. Raises StoreError."""
        newest = self.topic.newest
        self._events.clear()
        if after is None:
            self._put(ChangeEvent(newest))
        elif after.version < version_of(newest):
            self._last = after
            await self._catch_up()
        elif after.matches(newest):
            self._last = EventId.of(newest)
        else:
            self.reset(newest)

    def deliver(self, change: Change) -> None:
        """Queue the next change, unless the subscriber is behind: then it reads the change from the history later."""
        if version_of(change) == self._last.version + 1 and len(self._events) < MAX_QUEUED_EVENTS:
            self._put(ChangeEvent(change))

    def reset(self, newest: Change | None) -> None:
        """Replace all queued events by the current setting. The changes before it are not available."""
        self._events.clear()
        self._put(ChangeEvent(newest, is_reset=True))

    def end(self) -> None:
        """End the iteration and drop queued events."""
        if not self.has_ended:
            self.has_ended = True
            self._on_end(self)
            self._wake()

    async def _catch_up_or_pause(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()  # a reset or the end may come during the read
        try:
            await self._catch_up()
        except StoreError as error:
            if (pause := self._outage.pause_after(error)) is None:
                raise
            await asyncio.wait([self._waiter], timeout=pause)
        else:
            self._outage.end()

    async def _catch_up(self) -> None:
        changes = await self.topic.after(self._last, must_have_last=True)
        if not changes:
            # The store's history has changed under the topic. Let it read again, or this subscriber would loop.
            await asyncio.shield(self.topic.read())
        if self._events:
            return  # a reset came in between, so `changes` are from a history that was replaced
        newest = self.topic.newest
        # Only what the topic has delivered: a failover may replace later changes before the topic reads them.
        known = [change for change in changes or () if version_of(change) <= version_of(newest)]
        is_replaced = known and version_of(known[-1]) == version_of(newest) and known[-1] != newest
        if changes is None or is_replaced:
            self.reset(newest)
            return
        for change in known:
            self._put(ChangeEvent(change))

    def _put(self, event: ChangeEvent) -> None:
        self._last = EventId.of(event.change)
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
