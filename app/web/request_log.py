"""One line for each request but the probes: at INFO, at ERROR where the service failed."""

import logging
from typing import Final

from starlette.types import Scope

from app.web.failures import cause_of, refusal_of
from app.web.probes import PROBES
from app.web.request_id import request_id_of
from app.web.routes import route_of
from app.web.security import tenant_of
from app.web.trace_context import trace_of

_log = logging.getLogger(__name__)

_FAILED: Final = 500


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """An account of `Outcomes`. The line has the status 0 where the client left without an answer.

    `tenant` is there where the token was good, `refusal` where it opened nothing, `cause` where the service failed, be
    it after the answer had begun.
    """
    if scope["path"] in PROBES:
        return
    cause = cause_of(scope)
    level = logging.INFO if cause is None and status < _FAILED else logging.ERROR
    if not _log.isEnabledFor(level):
        return
    tenant, refusal = tenant_of(scope), refusal_of(scope)
    extra = {
        "request_id": request_id_of(scope),
        "method": scope["method"],
        "route": route_of(scope),
        "path": scope["raw_path"].decode("ascii"),
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        **({} if tenant is None else {"tenant": tenant}),
        **({} if refusal is None else {"refusal": refusal}),
        **({} if cause is None else {"cause": cause}),
        **trace_of(scope),
    }
    _log.log(level, "request", extra=extra)
