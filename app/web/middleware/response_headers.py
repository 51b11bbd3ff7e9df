"""Headers of every response: the request ID and `X-Content-Type-Options`."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import Header, request_context


def common_headers(scope: Scope) -> list[Header]:
    """Return the headers that every response to the request in `scope` has."""
    return [
        (b"x-request-id", request_context(scope).request_id.encode()),
        (b"x-content-type-options", b"nosniff"),  # browsers must not guess another media type
    ]


def sender_with_headers(send: Send, headers: Iterable[Header]) -> Send:
    """Return a function that sends messages with `send` and adds `headers` to the response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_with_headers


class ResponseHeaders:
    """Outermost middleware: adds `common_headers` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await self._app(scope, receive, sender_with_headers(send, common_headers(scope)))
