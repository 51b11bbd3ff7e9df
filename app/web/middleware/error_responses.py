"""Turns exceptions of all layers into error responses with the body that their OpenAPI document defines."""

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import (
    BadRequest,
    ConcurrentUpdate,
    FlagNotFound,
    Forbidden,
    InsufficientScope,
    InvalidBody,
    KeyUnavailable,
    RejectedToken,
    RejectionReason,
    ServiceError,
    Unauthorized,
    Unavailable,
)
from app.web.context import Header, RequestContext, request_context
from app.web.etags import entity_tag
from app.web.ofrep import EvaluationCode, error_fields, is_ofrep

_log = logging.getLogger(__name__)

# An error is for one client, and may be out of date soon.
_NO_STORE: Header = (b"cache-control", b"no-store")

_REALM = 'Bearer realm="external-oms-config"'

_STATUSES: Mapping[type[ServiceError], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    FlagNotFound: 404,
    ConcurrentUpdate: 409,
}

# The error codes of OFREP. All other errors are GENERAL, but a 404 for a flag is FLAG_NOT_FOUND.
_EVALUATION_CODES: Mapping[type[ServiceError], EvaluationCode] = {
    BadRequest: EvaluationCode.PARSE_ERROR,
    InvalidBody: EvaluationCode.INVALID_CONTEXT,
}

# The contract's error codes. Every other status becomes 500.
_CODES: Mapping[int, str] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "concurrent_update_on_tenant_setting",
    413: "payload_too_large",
    415: "unsupported_media_type",
    431: "request_header_fields_too_large",
    500: "internal_server_error",
}


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error as the client receives it."""

    status: int
    message: str
    headers: tuple[Header, ...] = ()
    evaluation_code: EvaluationCode = EvaluationCode.GENERAL

    def body(self, scope: Scope) -> bytes:
        """Return the JSON body for the request in `scope`: OFREP's error on its paths, the contract's on all others."""
        if is_ofrep(scope):
            return json.dumps(error_fields(scope, self.status, self.evaluation_code, self.message)).encode()
        fields = {
            "error_code": _CODES[self.status],
            "message": self.message,
            "request_id": request_context(scope).request_id,
        }
        return json.dumps(fields).encode()

    def headers_for(self, body: bytes) -> list[Header]:
        """Return the response's headers, with the length of `body`."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            _NO_STORE,
            *self.headers,
        ]


INTERNAL = ErrorResponse(500, "Couldn't process request due to an internal error.")


def error_response_for(error: BaseException) -> ErrorResponse:
    """Return the response for `error`, which is `INTERNAL` for every unexpected error."""
    if isinstance(error, ServiceError):
        status = next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), None)
        code = _EVALUATION_CODES.get(type(error), EvaluationCode.GENERAL)
        return ErrorResponse(status, str(error), tuple(_headers(error)), code) if status else INTERNAL
    # Connexion's ProblemException is a subclass of Starlette's HTTPException.
    if isinstance(error, HTTPException) and error.status_code in _CODES.keys() - {INTERNAL.status}:
        headers = (error.headers or {}).items()
        encoded = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        return ErrorResponse(error.status_code, error.detail or "The request cannot be processed.", encoded)
    return INTERNAL


def _headers(error: ServiceError) -> Iterable[Header]:
    """Yield `WWW-Authenticate` for tokens (RFC 6750, section 3), and the current `ETag` for a conflict."""
    if isinstance(error, Unauthorized) and error.reason is RejectionReason.MISSING:
        yield b"www-authenticate", _REALM.encode()
    elif isinstance(error, Unauthorized):
        reason = f'{_REALM}, error="invalid_token", error_description="{error}"'
        yield b"www-authenticate", reason.encode("ascii", "replace")
    elif isinstance(error, ConcurrentUpdate):
        yield b"etag", entity_tag(error.version).encode()
    elif isinstance(error, InsufficientScope):
        yield b"www-authenticate", f'{_REALM}, error="insufficient_scope", scope="{error.scope}"'.encode()


class ErrorResponses:
    """Middleware that responds to exceptions of the inner layers.

    If the client has left, there is no response and no error in the log. If the response has started, as an outer
    RequestObservers records, the error is logged and raised again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        context = request_context(scope)
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        # CancelledError: the server stops and does not wait any longer. The client gets a 500.
        except (Exception, asyncio.CancelledError) as error:
            response = error_response_for(error)
            if isinstance(error, RejectedToken | KeyUnavailable):
                context.rejection_reason = error.reason
            if isinstance(error, RejectedToken):
                context.rejection_detail = error.detail
            if context.status or response is INTERNAL:
                _report(error, context)
            if context.status:
                raise
            body = response.body(scope)
            headers = response.headers_for(body)
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and then each exception that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _report(error: BaseException, context: RequestContext) -> None:
    """Put the cause into the request's context for the log. Log unexpected errors with their traceback."""
    context.error_cause = "; ".join(f"{type(each).__name__}: {each}" for each in _chain(error))
    if not isinstance(error, Unavailable | asyncio.CancelledError):
        extra = {"request_id": context.request_id, "cause": context.error_cause}
        _log.error("request failed", extra=extra, exc_info=error)
