"""One line for each request but the probes: at INFO, at ERROR where the service failed."""

import logging
from typing import Final

from starlette.types import Scope

from app.web.contract.security import tenant_of
from app.web.endpoints.health import HEALTH_PATHS
from app.web.middleware.error_responses import cause_of, rejection_reason_of
from app.web.middleware.request_id import request_id_of
from app.web.middleware.trace_context import trace_of
from app.web.route_names import route_of

_log = logging.getLogger(__name__)

_FAILED: Final = 500


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """An account of `RequestObservers`. The line has the status 0 where the client left without an answer.

    `tenant` is there where the token was good, `refusal` where it opened nothing, `cause` where the service failed, be
    it after the answer had begun; `method` and `path` where they were read before the server refused the rest.
    """
    route = route_of(scope)
    if route in HEALTH_PATHS:
        return
    cause = cause_of(scope)
    level = logging.INFO if cause is None and status < _FAILED else logging.ERROR
    if not _log.isEnabledFor(level):
        return
    fields = {
        "request_id": request_id_of(scope),
        "method": scope.get("method"),
        "route": route,
        "path": scope.get("raw_path", b"").decode("ascii") or None,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "tenant": tenant_of(scope),
        "refusal": rejection_reason_of(scope),
        "cause": cause,
        **trace_of(scope),
    }
    _log.log(level, "request", extra={name: value for name, value in fields.items() if value is not None})
