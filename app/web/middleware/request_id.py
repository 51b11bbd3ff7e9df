"""Each request has an identifier: on its answer as `X-Request-ID`, in every line that is logged about it."""

import re
import secrets
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# On every answer: no browser is to take it for anything but what it says it is.
NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")

_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """The identifier of the request that `RequestIds` let through with `scope`."""
    request_id: str = scope["extensions"]["connexion_context"]["request_id"]
    return request_id


def identify(scope: Scope) -> str:
    """Gives the request in `scope` its identifier and, with it, a context that no other request shares.

    A caller's own `X-Request-ID` is kept where it is one header of 1 to 64 of `A-Z a-z 0-9 . _ -`. Connexion keeps
    what it learns about a request in `scope["extensions"]`, which some servers share between requests.
    """
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    kept = len(given) == 1 and _ACCEPTABLE.fullmatch(given[0])
    request_id = given[0].decode() if kept else secrets.token_hex(16)
    scope["extensions"] = {**(scope.get("extensions") or {}), "connexion_context": {"request_id": request_id}}
    return request_id


class RequestIds:
    """The outermost part: gives each request its identifier, and each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = (b"x-request-id", identify(scope).encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header, NO_SNIFFING]
            await send(message)

        await self._app(scope, receive, send_with_id)
