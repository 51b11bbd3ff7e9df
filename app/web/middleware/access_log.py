"""One line for each request but the probes: at INFO, at ERROR where the service failed."""

import logging
from typing import Final

from starlette.types import Scope

from app.web.context import request_context
from app.web.endpoints.health import HEALTH_PATHS
from app.web.middleware.trace_context import trace_of

_log = logging.getLogger(__name__)

_FAILED: Final = 500


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """An account of `RequestObservers`. The line has the status 0 where the client left without an answer.

    `tenant` is there where the token was good, `refusal` where it opened nothing, `cause` where the service failed, be
    it after the answer had begun; `method` and `path` where they were read before the server refused the rest.
    """
    context = request_context(scope)
    if context.route in HEALTH_PATHS:
        return
    level = logging.INFO if context.error_cause is None and status < _FAILED else logging.ERROR
    if not _log.isEnabledFor(level):
        return
    fields = {
        "request_id": context.request_id,
        "method": scope.get("method"),
        "route": context.route,
        "path": scope.get("raw_path", b"").decode("ascii") or None,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "tenant": context.principal and context.principal.tenant,
        "refusal": context.rejection_reason,
        "cause": context.error_cause,
        **trace_of(scope),
    }
    _log.log(level, "request", extra={name: value for name, value in fields.items() if value is not None})
