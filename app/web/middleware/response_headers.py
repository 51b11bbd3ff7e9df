"""Headers of every response: the request ID, the tenant and `X-Content-Type-Options`."""

import functools
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import Header, request_context


def common_headers(scope: Scope) -> list[Header]:
    """Return the headers that a response to the request in `scope` has. `Oms-Tenant` requires a verified token."""
    context = request_context(scope)
    headers = [
        (b"x-request-id", context.request_id.encode()),
        (b"x-content-type-options", b"nosniff"),  # browsers must not guess another media type
    ]
    if context.principal is not None:
        headers.append((b"oms-tenant", context.principal.tenant.encode()))
    return headers


def sender_with_headers(send: Send, headers: Callable[[], Iterable[Header]]) -> Send:
    """Return a function that sends messages with `send`, and adds what `headers` returns to the response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers()]
        await send(message)

    return send_with_headers


class ResponseHeaders:
    """Outermost middleware: adds `common_headers` to every response, at its start."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await self._app(scope, receive, sender_with_headers(send, functools.partial(common_headers, scope)))
