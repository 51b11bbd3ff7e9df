"""OpenTelemetry tracing, if this process has a tracer provider, for example under `opentelemetry-instrument`.

Only OpenTelemetry's API is used. Without a tracer provider, nothing is imported.
"""

import importlib
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_API: Final = "opentelemetry.trace"
# In seconds. A graceful shutdown has ten.
_FLUSH_LIMIT: Final = 2.0

Attributes = Mapping[str, str | int | list[str]]


class Tracing:
    """Creates spans, and identifies the current one."""

    def __init__(self, trace: ModuleType) -> None:
        """Use the tracer provider of `trace`, the module of OpenTelemetry's API."""
        self._trace: Any = trace
        self._propagate: Any = importlib.import_module("opentelemetry.propagate")
        self._tracer = self._trace.get_tracer("external-oms-config")

    def span(
        self,
        name: str,
        kind: Literal["SERVER", "CLIENT"],
        attributes: Attributes,
        headers: Mapping[str, str] | None = None,
    ) -> "AbstractContextManager[Span]":
        """Return a context manager that makes a new span the current one.

        Its parent is the span that `headers` of a request name, or the current one if they are None. An exception does
        not change the span.
        """
        span: AbstractContextManager[Span] = self._tracer.start_as_current_span(
            name,
            context=None if headers is None else self._propagate.extract(headers),
            kind=self._trace.SpanKind[kind],
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
        return span

    def fail(self, span: "Span", kind: str, description: str | None) -> None:
        """Mark the span as failed, with `kind` as `error.type`."""
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.StatusCode.ERROR, description)

    def identifiers(self) -> Mapping[str, str]:
        """Return `trace_id` and `span_id` of the current span, or nothing if it has ended or is not recorded.

        A background task that a request has started keeps the span of that request.
        """
        span = self._trace.get_current_span()
        if not span.is_recording():
            return {}
        context = span.get_span_context()
        return {
            "trace_id": self._trace.format_trace_id(context.trace_id),
            "span_id": self._trace.format_span_id(context.span_id),
        }

    def flush(self) -> None:
        """Export the spans that wait. Blocks for at most two seconds, so call it after the last request.

        A worker ends by a signal, so that OpenTelemetry's exit handler does not run.
        """
        force_flush = getattr(self._trace.get_tracer_provider(), "force_flush", None)  # only the SDK's provider has it
        if force_flush is not None:
            thread = threading.Thread(target=force_flush, daemon=True)  # it may exceed its own time limit
            thread.start()
            thread.join(_FLUSH_LIMIT)


def tracing_of_process() -> Tracing | None:
    """Return the tracing of this process, or None if it has no tracer provider."""
    if _API not in sys.modules:
        return None
    trace = importlib.import_module(_API)
    return None if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else Tracing(trace)
