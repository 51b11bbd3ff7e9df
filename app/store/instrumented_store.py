"""Metrics for the operations of a store."""

import itertools
import time
from collections.abc import Awaitable
from typing import Final

from app.metrics import Metrics
from app.store import Store
from app.store.observed_store import OPERATIONS, OUTCOMES, ObservedStore, Operation, Outcome, Result, outcome_of

# In seconds. An operation on a nearby Redis takes about 0.3 ms. REDIS_TIMEOUT limits each operation.
_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class InstrumentedStore(ObservedStore):
    """Wraps a store: counts its operations by outcome and measures their duration.

    Cancelled operations are not counted.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        super().__init__(store)
        count = metrics.counter(
            "external_oms_store_operations_total", "Store operations by outcome.", ("operation", "outcome")
        )
        duration = metrics.histogram(
            "external_oms_store_operation_duration_seconds", "Duration of store operations.", ("operation",), _BOUNDS
        )
        # Labelled once, because `labels` costs more than the counting.
        self._count = {each: count.labels(*each).inc for each in itertools.product(OPERATIONS, OUTCOMES)}
        self._duration = {operation: duration.labels(operation).observe for operation in OPERATIONS}

    async def _observe(self, operation: Operation, result: Awaitable[Result]) -> Result:
        began = time.perf_counter()
        try:
            value = await result
        except Exception as error:
            self._end(operation, outcome_of(error), began)
            raise
        self._end(operation, "ok", began)
        return value

    def _end(self, operation: Operation, outcome: Outcome, began: float) -> None:
        self._count[operation, outcome]()
        self._duration[operation](time.perf_counter() - began)
