"""How each request ended, for those who keep account of it."""

import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import RequestObserver, request_context, server_state


class RequestObservers:
    """Tells `observers` of each request once, when it has ended in whatever way.

    Through the state of the lifespan the server tells them of those that never come here.
    """

    def __init__(self, app: ASGIApp, observers: Sequence[RequestObserver]) -> None:
        self._app = app
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                server_state(scope.get("state", {})).observe = self._observe
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._observe(scope, request_context(scope).server_status or status, time.perf_counter() - began)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        for observer in self._observers:
            observer(scope, status, seconds)
