"""Metrics for the operations of a store."""

import itertools
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

from app.errors import ConcurrentUpdate, OutcomeUnknown
from app.metrics import Metrics
from app.model import Author, Change, Expected, Setting
from app.store import Store

Result = TypeVar("Result")

_OPERATIONS: Final = ("current", "change", "history")
_OUTCOMES: Final = ("ok", "conflict", "error", "unknown")
# In seconds. An operation on a nearby Redis takes about 0.3 ms. REDIS_TIMEOUT limits each operation.
_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class InstrumentedStore:
    """Wraps a store: counts its operations by outcome and measures their duration.

    Cancelled operations are not counted. Neither are pings and announcements.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self.announcements, self.ping, self.close = store.announcements, store.ping, store.close
        count = metrics.counter(
            "external_oms_store_operations_total", "Store operations by outcome.", ("operation", "outcome")
        )
        duration = metrics.histogram(
            "external_oms_store_operation_duration_seconds", "Duration of store operations.", ("operation",), _BOUNDS
        )
        # Labelled once, because `labels` costs more than the counting.
        self._count = {each: count.labels(*each).inc for each in itertools.product(_OPERATIONS, _OUTCOMES)}
        self._observe = {operation: duration.labels(operation).observe for operation in _OPERATIONS}

    async def current(self, tenant: str) -> Setting:
        """See `Store`."""
        return await self._measure("current", self._store.current(tenant))

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """See `Store`."""
        return await self._measure("change", self._store.change(tenant, enabled, author, expected))

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """See `Store`."""
        return await self._measure("history", self._store.history(tenant, limit, before))

    async def _measure(self, operation: str, result: Awaitable[Result]) -> Result:
        began = time.perf_counter()
        try:
            value = await result
        except Exception as error:
            self._end(operation, _outcome(error), began)
            raise
        self._end(operation, "ok", began)
        return value

    def _end(self, operation: str, outcome: str, began: float) -> None:
        self._count[operation, outcome]()
        self._observe[operation](time.perf_counter() - began)


def _outcome(error: Exception) -> str:
    if isinstance(error, ConcurrentUpdate):
        return "conflict"
    return "unknown" if isinstance(error, OutcomeUnknown) else "error"
