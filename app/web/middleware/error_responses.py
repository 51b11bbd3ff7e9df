"""The one way from an exception to an answer. Every error has its document's body, whoever raised it."""

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    BadRequest,
    ConcurrentUpdate,
    FlagNotFound,
    Forbidden,
    InsufficientScope,
    InvalidBody,
    KeyUnavailable,
    MissingToken,
    ServiceError,
    Unauthorized,
    Unavailable,
)
from app.web.context import Header, request_context
from app.web.etags import entity_tag
from app.web.ofrep import EvaluationCode, error_fields, is_ofrep

_log = logging.getLogger(__name__)

# What is said to one is for nobody else, and soon no longer true.
_NO_STORE: Header = (b"cache-control", b"no-store")

_REALM = 'Bearer realm="external-oms-config"'

_STATUSES: Mapping[type[ServiceError], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    FlagNotFound: 404,
    ConcurrentUpdate: 409,
}

# Those that OpenFeature tells apart.
_EVALUATION_CODES: Mapping[type[ServiceError], EvaluationCode] = {
    BadRequest: EvaluationCode.PARSE_ERROR,
    InvalidBody: EvaluationCode.INVALID_CONTEXT,
}

# The codes that clients see; a status that is missing here is a failure of our own.
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
    """An error as the client sees it."""

    status: int
    message: str
    headers: tuple[Header, ...] = ()
    evaluation_code: EvaluationCode = EvaluationCode.GENERAL

    def body(self, scope: Scope) -> bytes:
        """The body for this error, as OFREP has it on its paths, and on all others as the contract has it."""
        if is_ofrep(scope):
            return json.dumps(error_fields(scope, self.status, self.evaluation_code, self.message)).encode()
        fields = {
            "error_code": _CODES[self.status],
            "message": self.message,
            "request_id": request_context(scope).request_id,
        }
        return json.dumps(fields).encode()

    def head(self, body: bytes) -> list[Header]:
        """The headers that go with `body`."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            _NO_STORE,
            *self.headers,
        ]


INTERNAL = ErrorResponse(500, "Couldn't process request due to an internal error.")


def error_response_for(error: BaseException) -> ErrorResponse:
    """How `error` is answered; whatever is not foreseen is `INTERNAL`."""
    if isinstance(error, ServiceError):
        status = next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), None)
        code = _EVALUATION_CODES.get(type(error), EvaluationCode.GENERAL)
        return ErrorResponse(status, str(error), tuple(_headers(error)), code) if status else INTERNAL
    # Of Starlette's kind are Connexion's problems and, through Connexion's FlaskApp, Werkzeug's exceptions as well.
    if isinstance(error, HTTPException) and error.status_code in _CODES.keys() - {INTERNAL.status}:
        headers = (error.headers or {}).items()
        encoded = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        return ErrorResponse(error.status_code, error.detail or "The request cannot be answered.", encoded)
    return INTERNAL


def _headers(error: ServiceError) -> Iterable[Header]:
    """What tells a client how to go on: `WWW-Authenticate` (RFC 6750, section 3), the `ETag` that stands."""
    if isinstance(error, MissingToken):
        yield b"www-authenticate", _REALM.encode()
    elif isinstance(error, Unauthorized):
        reason = f'{_REALM}, error="invalid_token", error_description="{error}"'
        yield b"www-authenticate", reason.encode("ascii", "replace")
    elif isinstance(error, ConcurrentUpdate):
        yield b"etag", entity_tag(error.version).encode()
    elif isinstance(error, InsufficientScope):
        yield b"www-authenticate", f'{_REALM}, error="insufficient_scope", scope="{error.scope}"'.encode()


class ErrorResponses:
    """Answers for whatever the parts inside it raise. A client that has left gets no answer and is no failure."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientDisconnect:
            return
        # Cancelled: the server stops, and has waited long enough. Whoever is still there is told as of any failure.
        except (Exception, asyncio.CancelledError) as error:
            failure = error_response_for(error)
            if isinstance(error, Unauthorized | Forbidden | KeyUnavailable):
                request_context(scope).rejection_reason = error.reason
            if started or failure is INTERNAL:
                _report(error, scope)
            if started:
                raise
            await self._answer(failure, scope, send)

    async def _answer(self, failure: ErrorResponse, scope: Scope, send: Send) -> None:
        body = failure.body(scope)
        await send({"type": "http.response.start", "status": failure.status, "headers": failure.head(body)})
        await send({"type": "http.response.body", "body": body})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, all the way."""
    while error is not None:
        yield error
        error = error.__cause__


def _report(error: BaseException, scope: Scope) -> None:
    """Notes what the client is not told, for the request's line, and logs the whole story of the unforeseen."""
    cause = "; ".join(f"{type(each).__name__}: {each}" for each in _chain(error))
    request_context(scope).error_cause = cause
    if not isinstance(error, Unavailable | asyncio.CancelledError):
        _log.error(
            "request failed", extra={"request_id": request_context(scope).request_id, "cause": cause}, exc_info=error
        )
