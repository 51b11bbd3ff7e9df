"""How each request ended, for those who keep account of it."""

import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Called with the request's scope, the status of its answer (0: its client left without one) and the seconds it took.
Account = Callable[[Scope, int, float], None]


class Outcomes:
    """Tells `accounts` of each request once, when it has ended in whatever way."""

    def __init__(self, app: ASGIApp, accounts: Sequence[Account]) -> None:
        self._app = app
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
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
            seconds = time.perf_counter() - began
            for account in self._accounts:
                account(scope, status, seconds)
