"""One who is told of a tenant's changes, at a pace of its own."""

import asyncio
from collections.abc import Callable
from typing import Final, Self

from app.feed.topic import Topic
from app.model import Change, ChangeEvent, version_of

# With so many waiting, a listener is told no more: it reads the rest in the history, a page at a time.
MAX_QUEUED_EVENTS: Final = 16


class Subscriber:
    """An asynchronous iterator over what one listener is told. A wait for the next event may be cancelled."""

    __slots__ = ("_ended", "_events", "_on_end", "_version", "_waiter", "topic")

    def __init__(self, topic: Topic, on_end: "Callable[[Subscriber], object]") -> None:
        self.topic = topic
        self._on_end = on_end
        self._version = -1  # of the last event; none yet
        self._events: list[ChangeEvent] = []
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        """The next event. Raises StoreError where the history cannot be read; ends where the listener has ended."""
        while not self._ended:
            if self._events:
                return self._events.pop(0)
            if self._version < version_of(self.topic.newest):
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
        newest = self.topic.newest
        self._events.clear()
        if after is None:
            self._put(ChangeEvent(newest))
        elif after > version_of(newest):
            self.reset(newest)
        else:
            self._version = after
            if after < version_of(newest):
                await self._catch_up()

    def deliver(self, change: Change) -> None:
        """Tells of the change that comes next. A listener that is not there yet reads it in the history."""
        if version_of(change) == self._version + 1 and len(self._events) < MAX_QUEUED_EVENTS:
            self._put(ChangeEvent(change))

    def reset(self, newest: Change | None) -> None:
        """Tells what stands now; the changes that led there are not known."""
        self._events.clear()
        self._put(ChangeEvent(newest, is_reset=True))

    def end(self) -> None:
        """Ends the iteration; what was not heard yet is not told any more."""
        if not self._ended:
            self._ended = True
            self._on_end(self)
            self._wake()

    async def _catch_up(self) -> None:
        changes = await self.topic.after(self._version)
        newest = None if changes is not None else await self.topic.latest()
        if self._events:
            return  # a reset came meanwhile, and what was read is of another past
        if changes is None:
            self.reset(newest)
        for change in changes or ():
            self._put(ChangeEvent(change))
        if not changes:
            # What the topic knows is of another past: it has to find out, or this would be asked again and again.
            await asyncio.shield(self.topic.read())

    def _put(self, event: ChangeEvent) -> None:
        self._version = version_of(event.change)
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
