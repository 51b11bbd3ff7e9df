"""Reports each finished request to the request observers, the access log and the metrics, and adds common headers."""

import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.context import RequestObserver, request_context
from app.web.middleware.response_headers import common_headers


class RequestObservers:
    """Middleware that calls each of `observers` once per request, when it has ended, also after an exception.

    The server calls `observe`, through ServerState, for requests that do not reach the application. Every response gets
    the `common_headers`, too. Under OpenTelemetry, ServerSpans wraps this middleware; otherwise it is the outermost.
    """

    def __init__(self, app: ASGIApp, observers: Sequence[RequestObserver]) -> None:
        self._app = app
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        context, started = request_context(scope), time.perf_counter()

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *common_headers(context)]
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        finally:
            self.observe(scope, context.server_status or context.status, time.perf_counter() - started)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Call each observer. This is a request observer."""
        for observer in self._observers:
            observer(scope, status, seconds)
