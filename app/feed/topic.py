"""One tenant's changes, read once for all who are told of them."""

import asyncio
import logging
from typing import Final, Protocol

from app.errors import StoreError
from app.feed.failures import cause, fail
from app.model import Change, version_of
from app.store import Store

_log = logging.getLogger(__name__)

# How many changes are read at a time.
_PAGE: Final = 100


class ChangeReceiver(Protocol):
    """Who can be told of changes."""

    def deliver(self, change: Change) -> None:
        """Tells of the change that comes next."""

    def reset(self, newest: Change | None) -> None:
        """Tells what stands now; the changes that led there are not known."""

    def end(self) -> None:
        """Nothing more is told."""


class Topic:
    """What the listeners of one tenant have in common: the newest change that they were told of."""

    def __init__(self, tenant: str, store: Store) -> None:
        self.tenant = tenant
        self.subscribers: set[ChangeReceiver] = set()
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
        for subscriber in list(self.subscribers):
            subscriber.end()

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
                await self._deliver()
            except Exception as error:
                # Nobody goes on listening to what nobody reads, whatever the reason.
                unforeseen = None if isinstance(error, StoreError) else error
                extra = {"tenant": self.tenant, "cause": cause(error)}
                _log.warning("listeners sent away", extra=extra, exc_info=unforeseen)
                for waiting in (done, self._wanted):
                    if waiting is not None:
                        fail(waiting, error)
                self._wanted = None
                self.end()
            else:
                done.set_result(None)
        self._reader = None

    async def _deliver(self) -> None:
        """Tells the listeners what they have not been told yet."""
        if not self._is_known:
            self.newest, self._is_known = await self.latest(), True
            return
        changes = await self.after(version_of(self.newest), self.newest)
        while changes:
            for change in changes:
                self.newest = change
                for subscriber in self.subscribers:
                    subscriber.deliver(change)
            changes = await self.after(version_of(self.newest), self.newest) if len(changes) == _PAGE else []
        if changes is None:
            self.newest = await self.latest()
            for subscriber in self.subscribers:
                subscriber.reset(self.newest)
