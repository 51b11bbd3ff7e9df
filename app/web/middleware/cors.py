"""Pages of other origins that may use the service from a browser: the CORS protocol of the Fetch Standard."""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import Header

_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", b"ETag, X-Request-ID")
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, X-Request-ID",
    ),
    (b"access-control-max-age", b"600"),
)


class Cors:
    """Tells browsers that pages of `origins` may read the answers, errors included; `*` is every origin.

    Credentials of the browser's own, such as cookies, are never asked for: a token is what a page has to bring. A page
    of another origin is answered as ever, and its browser keeps the answer from it. Starlette's CORSMiddleware would
    refuse it with an error that has not the contract's body.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        own = self._headers(headers.get("origin"))
        if scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            # Not for the application: what it would say of a path needs a token, which browsers do not send here.
            preflight = [*own, *_PREFLIGHT] if len(own) > 1 else own
            await send({"type": "http.response.start", "status": 204, "headers": preflight})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_with_permission(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        await self._app(scope, receive, send_with_permission)

    def _headers(self, origin: str | None) -> list[Header]:
        """What goes on any answer; what depends on the origin says so to caches, also where there is none."""
        if self._any:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if origin not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin.encode()), _EXPOSED, _VARY]
