"""One line for each request but the probes, at INFO."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.probes import PROBES
from app.web.request_id import request_id_of

_log = logging.getLogger(__name__)


class RequestLog:
    """Logs each request once it is answered, or, with status 0, once its client has left without an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http" or scope["path"] in PROBES or not _log.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, send_and_note)
        _log.info(
            "request",
            extra={
                "request_id": request_id_of(scope),
                "method": scope["method"],
                "path": scope["raw_path"].decode("ascii"),
                "status": status,
                "duration_ms": round((time.perf_counter() - began) * 1000, 3),
            },
        )
