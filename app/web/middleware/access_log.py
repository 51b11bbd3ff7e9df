"""The access log: one line per request, except for probes. INFO, or ERROR if the service failed."""

import logging
from typing import Final

from starlette.types import Scope

from app.web.context import request_context, route_template
from app.web.endpoints.health import HEALTH_PATHS
from app.web.middleware.trace_context import trace_of

_log = logging.getLogger(__name__)

_FAILED: Final = 500


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """Log a finished request. This is a request observer.

    The status is 0 if the client left without a response. Fields without a value are left out: `tenant` without a
    verified token, `refusal` (the rejection reason) and `detail` unless the token was rejected, `cause` unless the
    service failed, `method` and `path` if the server refused the request before it read them.
    """
    context = request_context(scope)
    route = route_template(scope)
    if route in HEALTH_PATHS:
        return
    level = logging.INFO if context.error_cause is None and status < _FAILED else logging.ERROR
    if not _log.isEnabledFor(level):
        return
    fields = {
        "request_id": context.request_id,
        "method": scope.get("method"),
        "route": route,
        "path": scope.get("raw_path", b"").decode("ascii") or None,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "tenant": context.principal and context.principal.tenant,
        "refusal": context.rejection_reason,
        "detail": context.rejection_detail,
        "cause": context.error_cause,
        **trace_of(scope),
    }
    _log.log(level, "request", extra={name: value for name, value in fields.items() if value is not None})
