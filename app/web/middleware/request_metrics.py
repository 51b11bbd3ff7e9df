"""Prometheus metrics of requests."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Final

from starlette.types import Scope

from app.errors import RejectionReason
from app.metrics import Metrics
from app.web.context import request_context, route_template
from app.web.endpoints.health import HEALTH_PATHS
from app.web.endpoints.prometheus import METRICS_PATH

# Probes and scrapes would outnumber the requests of clients, and a 503 during a shutdown is not a failure.
UNCOUNTED: Final = HEALTH_PATHS | {METRICS_PATH}

# In seconds. A read takes about a millisecond, a request to a store that hangs up to 1.5 times REDIS_TIMEOUT.
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# OpenTelemetry's semantic conventions for HTTP: these methods, and `_OTHER` for all others.
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER_METHOD: Final = "_OTHER"


def known_method(scope: Scope) -> str:
    """Return the method of the request if it is a usual one, otherwise `OTHER_METHOD`."""
    method: str = scope.get("method", OTHER_METHOD)  # missing if the server refused the request before it read it
    return method if method in _METHODS else OTHER_METHOD


class RequestMetrics:
    """Counts requests, their durations, rejected tokens and event streams in `metrics`.

    A request counts when it has ended, with the status 0 if its client left without a response. An event stream counts
    when it opens and has no duration. Probes and requests for the metrics do not count.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._durations = metrics.histogram(
            "http_server_request_duration_seconds",
            "Duration of requests in seconds, without event streams.",
            ("http_request_method", "http_route", "http_response_status_code"),
            _BOUNDS,
        )
        # Looking up labels costs more than counting, so each combination is looked up once.
        self._histogram_of = functools.cache(self._durations.labels)
        rejected = metrics.counter(
            "external_oms_token_refusals_total", "Requests with a missing or rejected token, by reason.", ("reason",)
        )
        self._rejected_tokens = {reason: rejected.labels(reason) for reason in RejectionReason}
        self._streams = metrics.counter("external_oms_event_streams_total", "Event streams that were opened.")
        self._subscribers = metrics.gauge("external_oms_event_listeners", "Event streams that are open now.")

    def count_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a finished request. This is a request observer."""
        context = request_context(scope)
        route = route_template(scope)
        if route in UNCOUNTED:
            return
        if context.rejection_reason is not None:
            self._rejected_tokens[context.rejection_reason].inc()
        if context.event_stream is not None:
            return
        self._histogram_of(known_method(scope), route, status).observe(seconds)

    @contextlib.contextmanager
    def open_stream(self) -> Iterator[None]:
        """Count an event stream as open during the context."""
        self._streams.inc()
        self._subscribers.inc()
        try:
            yield
        finally:
            self._subscribers.dec()
