"""Metrics for the operations of a store."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

from prometheus_client import Histogram

from app.errors import ConcurrentUpdate, OutcomeUnknown
from app.metrics import Metrics
from app.model import Author, Change, Expected, Setting
from app.store import Store

Result = TypeVar("Result")

_OUTCOMES: Final = ("ok", "conflict", "error", "unknown")
# In seconds. An operation on a nearby Redis takes about 0.3 ms. REDIS_TIMEOUT limits each operation.
_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class InstrumentedStore:
    """Wraps a store: counts its operations by outcome and measures their duration.

    Cancelled operations are not counted. Neither are pings and announcements.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        count = metrics.counter(
            "external_oms_store_operations_total", "Store operations by outcome.", ("operation", "outcome")
        )
        duration = metrics.histogram(
            "external_oms_store_operation_duration_seconds", "Duration of store operations.", ("operation",), _BOUNDS
        )
        self._current, self._change, self._history = (
            _OperationMetrics(
                {outcome: count.labels(operation, outcome).inc for outcome in _OUTCOMES}, duration.labels(operation)
            )
            for operation in ("current", "change", "history")
        )

    async def current(self, tenant: str) -> Setting:
        """See `Store`."""
        return await self._current.measure(self._store.current(tenant))

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """See `Store`."""
        return await self._change.measure(self._store.change(tenant, enabled, author, expected))

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """See `Store`."""
        return await self._history.measure(self._store.history(tenant, limit, before))

    def announcements(self) -> AbstractAsyncContextManager[AsyncIterator[str | None]]:
        """See `Store`."""
        return self._store.announcements()

    async def ping(self) -> None:
        """See `Store`."""
        await self._store.ping()

    async def close(self) -> None:
        """See `Store`."""
        await self._store.close()


class _OperationMetrics:
    """The metrics of one operation: a counter per outcome, and the duration."""

    def __init__(self, count: Mapping[str, Callable[[], None]], duration: Histogram) -> None:
        self._count = count
        self._duration = duration

    async def measure(self, operation: Awaitable[Result]) -> Result:
        began = time.perf_counter()
        try:
            result = await operation
        except Exception as error:
            self._end(_outcome(error), began)
            raise
        self._end("ok", began)
        return result

    def _end(self, outcome: str, began: float) -> None:
        self._count[outcome]()
        self._duration.observe(time.perf_counter() - began)


def _outcome(error: Exception) -> str:
    if isinstance(error, ConcurrentUpdate):
        return "conflict"
    return "unknown" if isinstance(error, OutcomeUnknown) else "error"
