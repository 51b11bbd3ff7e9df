"""OpenTelemetry's spans for the operations of a store."""

from collections.abc import Awaitable

from app.errors import StoreError
from app.store import Store
from app.store.observed_store import ObservedStore, Operation, Result, outcome_of
from app.tracing import Tracing


class TracedStore(ObservedStore):
    """Wraps a store: each operation is a span below the current one, with its outcome."""

    def __init__(self, store: Store, tracing: Tracing) -> None:
        super().__init__(store)
        self._tracing = tracing

    async def _observe(self, operation: Operation, result: Awaitable[Result]) -> Result:
        with self._tracing.span(f"store {operation}", "CLIENT", {"db.system.name": "redis"}) as span:
            try:
                value = await result
            except Exception as error:
                span.set_attribute("external_oms.outcome", outcome_of(error))
                if isinstance(error, StoreError):
                    self._tracing.fail(span, type(error).__name__, str(error))
                raise
            span.set_attribute("external_oms.outcome", "ok")
            return value
