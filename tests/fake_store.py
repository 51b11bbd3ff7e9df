"""A store by hand: the same promises, in a dict."""

from collections.abc import Awaitable, Callable

from app.errors import ConcurrentUpdate
from app.model import NEVER_SET, Setting


class FakeStore:
    """Keeps settings in memory. `before_commit` is called between the read and the write of each change."""

    def __init__(
        self, settings: dict[str, Setting] | None = None, before_commit: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self.settings = {} if settings is None else settings
        self._before_commit = before_commit

    async def current(self, tenant: str) -> Setting:
        return self.settings.get(tenant, NEVER_SET)

    async def change(self, tenant: str, enabled: bool) -> Setting:
        seen = await self.current(tenant)
        if seen.enabled == enabled:
            return seen
        if self._before_commit is not None:
            await self._before_commit()
        if self._changed_since(tenant, seen):
            raise ConcurrentUpdate("Concurrent update detected on external_oms configuration setting.")
        self.settings[tenant] = Setting(enabled, seen.version + 1)
        return self.settings[tenant]

    async def close(self) -> None:
        pass

    def _changed_since(self, tenant: str, seen: Setting) -> bool:
        return self.settings.get(tenant, NEVER_SET) != seen


class UnwatchedFakeStore(FakeStore):
    """A negative control: writes whatever happened meanwhile."""

    def _changed_since(self, tenant: str, seen: Setting) -> bool:
        return False
