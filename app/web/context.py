"""Typed state that the server and the layers of `app.web` share."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from starlette.routing import Mount, Route
from starlette.types import Scope

from app.errors import RejectionReason
from app.model import Principal

Header = tuple[bytes, bytes]

# Called with the scope of a finished request, the status of its response (0 if the client left without one) and its
# duration in seconds.
RequestObserver = Callable[[Scope, int, float], None]

UNMATCHED: Final = "unmatched"

_REQUEST: Final = "external_oms.request"
_SERVER: Final = "external_oms.server"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True, eq=False)
class EventStream:
    """An open-ended response: the chunks of the body, and the head that Flask made.

    `end` stops `chunks`. It may be called more than once, also after the last chunk.
    """

    chunks: AsyncIterator[bytes]
    end: Callable[[], object]
    status: int = 200
    headers: list[Header] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class RequestContext:
    """State of one request. A comment names the layer that sets a field, which has its default until then."""

    request_id: str
    # server: True if the client sends nothing more; the status if the server responded instead of the application.
    is_half_closed: bool = False
    server_status: int | None = None
    # contract/validation: the operationId.
    operation_id: str = ""
    # contract/security: the verified token's principal, and a function that returns its expiry (seconds since 1970).
    # The function raises ServiceError if the token is no longer accepted.
    principal: Principal | None = None
    token_expiry: Callable[[], Awaitable[float]] | None = None
    # contract/parameters and contract/json_body: the validated input.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    body_bytes: bytes = b""
    # contract/flask_bridge: the event stream, which middleware/streaming sends.
    event_stream: EventStream | None = None
    # middleware/request_observers: the status of the application's response, 0 until the response has started.
    status: int = 0
    # middleware/error_responses: the reason for rejecting the token, its detail, and the cause of a 500 (both for the
    # log only).
    rejection_reason: RejectionReason | None = None
    rejection_detail: str | None = None
    error_cause: str | None = None


@dataclass(slots=True, eq=False)
class ServerState:
    """State that the server and the application share while the process lives."""

    # server: True from the start of the shutdown.
    is_stopping: bool = False
    # middleware/request_observers: reports a request that did not reach the application.
    observe: RequestObserver | None = None
    # middleware/streaming: ends all event streams.
    end_streams: Callable[[], None] | None = None


def request_context(scope: Scope) -> RequestContext:
    """Return the context of the request in `scope`. The first call creates it.

    The request ID is the client's `X-Request-ID` if that is one header of 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    Otherwise it is random.
    """
    context: RequestContext | None = scope.get(_REQUEST)
    if context is None:
        context = scope[_REQUEST] = RequestContext(_request_id(scope["headers"]))
    return context


def route_template(scope: Scope) -> str:
    """Return the template of the path that matched the request, such as `/docs/{path}`, or `UNMATCHED`."""
    route: Route | Mount | None = scope.get("route")  # from Starlette's Router
    return UNMATCHED if route is None else route.path_format


def server_state(lifespan_state: MutableMapping[str, Any]) -> ServerState:
    """Return the server's state from the ASGI lifespan state, or from its copy in `scope["state"]` of a request."""
    return cast(ServerState, lifespan_state.setdefault(_SERVER, ServerState()))


def header_values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """Return the value of each header with this name, which must be in lower case."""
    return [value for each, value in headers if each == name]


def single_header(headers: Iterable[Header], name: bytes) -> bytes:
    """Return the value of the only header with this name, or nothing if there is none or more than one."""
    values = header_values(headers, name)
    return values[0] if len(values) == 1 else b""


def _request_id(headers: list[Header]) -> str:
    given = single_header(headers, b"x-request-id")
    return given.decode() if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
