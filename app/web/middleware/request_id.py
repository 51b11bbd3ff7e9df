"""Each request has an identifier: on its answer as `X-Request-ID`, in every line that is logged about it."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import request_context

# On every answer: no browser is to take it for anything but what it says it is.
NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")


class RequestIds:
    """The outermost part: gives each request its identifier, and each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = (b"x-request-id", request_context(scope).request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header, NO_SNIFFING]
            await send(message)

        await self._app(scope, receive, send_with_id)
