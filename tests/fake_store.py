"""A store by hand: the same promises, in a dict."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from app.errors import ConcurrentUpdate
from app.model import NEVER_SET, Author, Change, Expected, Setting


class FakeStore:
    """Keeps changes in memory. `before_commit` is called between the read and the write of each change."""

    def __init__(
        self,
        history_length: int,
        changes: dict[str, list[Change]] | None = None,
        before_commit: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.changes = {} if changes is None else changes
        self._history_length = history_length
        self._before_commit = before_commit

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
        stands = await self.current(tenant)
        if self._is_watched(seen, stands):
            raise ConcurrentUpdate(stands.version)
        changed = Setting(enabled, seen.version + 1)
        self.changes.setdefault(tenant, []).append(Change(changed, datetime.now(UTC), author))
        return changed

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        kept = self.changes.get(tenant, [])[-self._history_length :]
        return [each for each in reversed(kept) if before is None or each.setting.version < before][:limit]

    async def close(self) -> None:
        pass

    def _is_watched(self, seen: Setting, stands: Setting) -> bool:
        return seen != stands


class UnwatchedFakeStore(FakeStore):
    """A negative control: writes whatever happened meanwhile."""

    def _is_watched(self, seen: Setting, stands: Setting) -> bool:
        return False
