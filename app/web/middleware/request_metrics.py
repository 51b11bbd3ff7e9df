"""Prometheus metrics of requests."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from starlette.types import Scope

from app.errors import RejectionReason
from app.metrics import Metrics
from app.web.context import request_context
from app.web.endpoints.health import HEALTH_PATHS
from app.web.endpoints.prometheus import METRICS_PATH

# What a platform asks for: it would drown what callers do, and a 503 of a process that stops is no failure.
_UNCOUNTED: Final = HEALTH_PATHS | {METRICS_PATH}

# In seconds; a read takes about a millisecond, a store that hangs its limit and half of it again.
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# OpenTelemetry's semantic conventions for HTTP: RFC 9110's and PATCH; all others are one.
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_OTHER: Final = "_OTHER"


class RequestMetrics:
    """Counts requests and their durations in `metrics`.

    A request is counted once it has ended, with the status 0 where its client left without an answer. A stream is
    counted when it begins, and not timed: it lasts as long as its listener likes. Requests for the metrics and
    probes are not counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._durations = metrics.histogram(
            "http_server_request_duration_seconds",
            "How long requests took, streams of events left out.",
            ("http_request_method", "http_route", "http_response_status_code"),
            _BOUNDS,
        )
        # Looking a label up costs more than counting: each combination is looked up once.
        self._observers: dict[tuple[str, str, int], Callable[[float], None]] = {}
        refusals = metrics.counter(
            "external_oms_token_refusals_total", "Requests whose token opened nothing.", ("reason",)
        )
        self._refusals = {reason: refusals.labels(reason) for reason in RejectionReason}
        self._streams = metrics.counter("external_oms_event_streams_total", "Streams of events that were begun.")
        self._subscribers = metrics.gauge("external_oms_event_listeners", "Streams of events that are open now.")

    def count_request(self, scope: Scope, status: int, seconds: float) -> None:
        """An account of `RequestObservers`."""
        context = request_context(scope)
        if context.route in _UNCOUNTED:
            return
        if context.rejection_reason is not None:
            self._refusals[context.rejection_reason].inc()
        if context.event_stream is not None:
            return
        method = scope.get("method", _OTHER)  # the server may have refused the request before it was read
        labels = (method if method in _METHODS else _OTHER, context.route, status)
        observe = self._observers.get(labels)
        if observe is None:
            observe = self._observers[labels] = self._durations.labels(*labels).observe
        observe(seconds)

    @contextlib.contextmanager
    def open_stream(self) -> Iterator[None]:
        """Within it, one more listens to the events."""
        self._streams.inc()
        self._subscribers.inc()
        try:
            yield
        finally:
            self._subscribers.dec()
