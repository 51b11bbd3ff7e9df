"""Cross-Origin Resource Sharing (Fetch Standard): lets web pages of other origins use the service."""

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import Header

_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", b"ETag, X-Request-ID")
_PREFLIGHT: Final = ((b"access-control-allow-methods", b"GET, POST"), (b"access-control-max-age", b"600"))
_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-ID",
)
_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110, section 5.6.2


class Cors:
    """Middleware that lets web pages of `origins` read all responses, errors included. `*` allows every origin.

    A page must send a token, and may send any other header. Cookies and other browser credentials are never allowed.
    Requests from other origins get a
    normal response without CORS headers, which the browser hides from the page. Starlette's CORSMiddleware would
    refuse their preflight requests with a body that is not the contract's.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._allows_all = "*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope)
        cors_headers = self._headers(headers.get("origin"))
        if scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            # A preflight request is only about CORS, so the application does not see it.
            allowed = _allowed_headers(headers.get("access-control-request-headers", ""))
            preflight = [*cors_headers, *_PREFLIGHT, allowed] if len(cors_headers) > 1 else cors_headers
            await send({"type": "http.response.start", "status": 204, "headers": preflight})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *cors_headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _headers(self, origin: str | None) -> list[Header]:
        """Return the CORS headers of a response to a page of `origin`.

        `Vary` keeps caches from using one origin's response for another, also if the request has no origin.
        """
        if self._allows_all:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if origin not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin.encode()), _EXPOSED, _VARY]


def _allowed_headers(requested: str) -> Header:
    """Return the header that allows the request headers that the service reads, and all in the list `requested`.

    Tracing libraries add their own (`traceparent`, `baggage`, `sentry-trace`, …). If one of them is not allowed, the
    browser blocks the request.
    """
    known = {name.lower() for name in _REQUEST_HEADERS}
    names = [name.strip() for name in requested.split(",")]
    others = [name for name in names if _HEADER_NAME.fullmatch(name) and name.lower() not in known]
    return b"access-control-allow-headers", ", ".join([*_REQUEST_HEADERS, *others]).encode()
