"""A hand-written fake of the store. It keeps the same promises in a dict."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from app.errors import ConcurrentUpdate, StoreError
from app.model import NEVER_SET, Author, Change, Expected, Setting
from app.store.audit import log_change


class FakeStore:
    """A store in memory. Each change calls `before_commit` between its read and its write."""

    def __init__(
        self,
        history_length: int,
        changes: dict[str, list[Change]] | None = None,
        before_commit: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.changes = {} if changes is None else changes
        self._history_length = history_length
        self._before_commit = before_commit
        self._subscriptions: list[asyncio.Queue[str | None]] = []

    async def current(self, tenant: str) -> Setting:
        changes = self.changes.get(tenant)
        return changes[-1].setting if changes else NEVER_SET

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        seen = await self.current(tenant)
        if expected is not None and seen.version not in expected:
            raise ConcurrentUpdate(seen.version)
        if seen.enabled == enabled:
            return seen
        if self._before_commit is not None:
            await self._before_commit()
        current = await self.current(tenant)
        if self._conflicts(seen, current):
            raise ConcurrentUpdate(current.version)
        changed = Setting(enabled, seen.version + 1)
        change = Change(changed, datetime.now(UTC), author, os.urandom(16).hex())
        self.changes.setdefault(tenant, []).append(change)
        log_change(tenant, change, "stored")
        self.announce(tenant)
        return changed

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        kept = self.changes.get(tenant, [])[-self._history_length :]
        return [each for each in reversed(kept) if before is None or each.setting.version < before][:limit]

    async def ping(self) -> None:
        pass

    @contextlib.asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[str]]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._subscriptions.append(queue)
        try:
            yield self._announced(queue)
        finally:
            if queue in self._subscriptions:
                self._subscriptions.remove(queue)

    @property
    def subscriptions(self) -> int:
        """Return the number of open subscriptions."""
        return len(self._subscriptions)

    async def _announced(self, queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
        while (tenant := await queue.get()) is not None:
            yield tenant
        raise StoreError("the subscription was cut")

    def announce(self, tenant: str) -> None:
        for queue in self._subscriptions:
            queue.put_nowait(tenant)

    def cut_subscriptions(self) -> None:
        """End all subscriptions. Later announcements reach only new ones."""
        for queue in self._subscriptions:
            queue.put_nowait(None)
        self._subscriptions.clear()

    async def close(self) -> None:
        pass

    def _conflicts(self, seen: Setting, current: Setting) -> bool:
        return seen != current


class UnwatchedFakeStore(FakeStore):
    """A negative control: writes even if a rival write came between."""

    def _conflicts(self, seen: Setting, current: Setting) -> bool:
        return False
