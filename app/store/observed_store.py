"""A store that observes the operations of another one."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Final, Literal, TypeVar, get_args

from app.errors import ConcurrentUpdate, OutcomeUnknown
from app.model import Author, Change, Expected, Setting
from app.store import Store

Result = TypeVar("Result")

Operation = Literal["current", "change", "history"]
Outcome = Literal["ok", "conflict", "error", "unknown"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


class ObservedStore(ABC):
    """Wraps a store. Subclasses observe its operations, but neither pings nor announcements."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.announcements, self.ping, self.close = store.announcements, store.ping, store.close

    async def current(self, tenant: str) -> Setting:
        """See `Store`."""
        return await self._observe("current", self._store.current(tenant))

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """See `Store`."""
        return await self._observe("change", self._store.change(tenant, enabled, author, expected))

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """See `Store`."""
        return await self._observe("history", self._store.history(tenant, limit, before))

    @abstractmethod
    async def _observe(self, operation: Operation, result: Awaitable[Result]) -> Result:
        """Await `result` and return it."""


def outcome_of(error: Exception) -> Outcome:
    """Return the outcome of an operation that raised `error`."""
    if isinstance(error, ConcurrentUpdate):
        return "conflict"
    return "unknown" if isinstance(error, OutcomeUnknown) else "error"
