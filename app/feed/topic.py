"""A topic: reads one tenant's changes once for all its subscribers."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from app.errors import StoreError
from app.feed.outage import Outage
from app.model import Change, EventId, version_of
from app.store import Store

if TYPE_CHECKING:
    from app.feed.subscriber import Subscriber

_log = logging.getLogger(__name__)

# How many changes are read in one store operation.
_PAGE_SIZE: Final = 100


class Topic:
    """One tenant's subscribers, and `newest`, the last change that was delivered to them.

    `new_outage` makes an outage for its reads, and one for each subscriber.
    """

    def __init__(self, tenant: str, store: Store, new_outage: Callable[[], Outage]) -> None:
        self.tenant = tenant
        self.subscribers: dict[Subscriber, None] = {}  # in the order of their arrival, so that a run can be repeated
        self.newest: Change | None = None
        self.new_outage = new_outage
        self._store = store
        self._outage = new_outage()
        self._is_loaded = False
        self._next_read: asyncio.Future[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def read(self) -> asyncio.Future[None]:
        """Return a future that is done once every change that is stored now was delivered.

        Several calls may share one read. The future raises the error of the read. After a StoreError, the topic reads
        again while it has subscribers. It ends them if the outage lasts too long, and at once after any other error.
        """
        if self._next_read is None:
            self._next_read = asyncio.get_running_loop().create_future()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
        return self._next_read

    def end(self) -> None:
        """End all subscribers."""
        for subscriber in list(self.subscribers):
            subscriber.end()

    async def after(self, last: EventId, *, must_have_last: bool) -> list[Change] | None:
        """Return the next changes after the event `last`, oldest first, at most 100. Raises StoreError.

        Returns None if the history does not reach back to `last`, or if the store now has another change at that
        version (after a restore or a failover). With `must_have_last`, it also returns None if `last` has a checksum
        that cannot be compared, because the history begins with the next change.
        """
        version = last.version
        page = await self._page(version)
        if version == 0 and not page:
            if await self.latest() is None:
                return []
            page = await self._page(version)  # the first change may have been stored in between
        at_version = [change for change in page if version_of(change) == version]
        changes = [change for change in reversed(page) if version_of(change) > version]
        is_replaced = at_version and not last.matches(at_version[0])
        is_unknown = must_have_last and last.checksum and not at_version
        if is_replaced or is_unknown or (changes and version_of(changes[0]) != version + 1):
            return None
        return changes if changes or at_version else None

    async def _page(self, version: int) -> list[Change]:
        """Return the change with `version` and the next 100, newest first."""
        return await self._store.history(self.tenant, _PAGE_SIZE + 1, version + _PAGE_SIZE + 1)

    async def latest(self) -> Change | None:
        """Return the newest change in the store, or None if the setting was never set. Raises StoreError."""
        newest = await self._store.history(self.tenant, 1)
        return newest[0] if newest else None

    async def _read(self) -> None:
        while self._next_read is not None:
            current_read, self._next_read = self._next_read, None
            try:
                await self._deliver()
            except Exception as error:
                for waiting in (current_read, self._next_read):
                    if waiting is not None:
                        fail_future(waiting, error)
                self._next_read = None
                self._read_again_or_end(error)
            else:
                self._outage.end()
                current_read.set_result(None)
        self._reader = None

    def _read_again_or_end(self, error: Exception) -> None:
        """Read again after a pause, or end all subscribers if the outage has lasted too long."""
        if self._timer is not None:
            self._timer.cancel()
        if (pause := self._outage.pause_after(error)) is not None:
            self._timer = asyncio.get_running_loop().call_later(pause, lambda: self.subscribers and self.read())
            return
        # Without a reader, subscribers would wait for ever.
        unexpected = None if isinstance(error, StoreError) else error
        extra = {"tenant": self.tenant, "cause": error_with_cause(error)}
        _log.warning("changes are not read", extra=extra, exc_info=unexpected)
        self.end()

    async def _deliver(self) -> None:
        """Read the changes after `newest` and deliver them. The first call only loads `newest`."""
        if not self._is_loaded:
            self.newest, self._is_loaded = await self.latest(), True
            return
        changes = await self._after_newest()
        while changes:
            for change in changes:
                self.newest = change
                for subscriber in self.subscribers:
                    subscriber.deliver(change)
            changes = await self._after_newest() if len(changes) == _PAGE_SIZE else []
        if changes is None:
            self.newest = await self.latest()
            for subscriber in self.subscribers:
                subscriber.reset(self.newest)

    async def _after_newest(self) -> list[Change] | None:
        # With HISTORY_LENGTH=1, the history never has the change before the next one.
        return await self.after(EventId.of(self.newest), must_have_last=False)


def fail_future(future: asyncio.Future[None], error: Exception) -> None:
    """Make `future` raise `error`, unless it is done."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as retrieved, or asyncio would log it if no caller waits


def error_with_cause(error: Exception) -> str:
    """Return the text of `error` and of its cause, for the log."""
    cause = error.__cause__
    return f"{error}: {str(cause) or type(cause).__name__}" if cause else str(error)  # a TimeoutError has no text
