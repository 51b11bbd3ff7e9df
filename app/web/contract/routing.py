"""Finds the operation of a request by its path and method."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from connexion.middleware import SpecMiddleware
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.spec import Specification
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]

_METHODS: Final = frozenset({"delete", "get", "head", "options", "patch", "post", "put", "trace"})


class ContractRouting(SpecMiddleware):
    """Connexion middleware that replaces `RoutingMiddleware` and runs the lifespan `on_lifespan`.

    Connexion's middleware makes a route per method, so that `Allow` of a 405 is incomplete, and redirects paths with a
    trailing slash. This class makes one route per path. Paths that no document describes go to `fallback`.
    """

    def __init__(self, app: ASGIApp, *, fallback: ASGIApp, on_lifespan: Lifespan) -> None:
        self._app = app
        self._router = Router(redirect_slashes=False, default=fallback, lifespan=on_lifespan)

    def add_api(self, specification: Specification, **_options: Any) -> None:
        """Add the paths of a document. Connexion calls it once per document."""
        for path, item in specification["paths"].items():
            operations = {name.upper(): item[name]["operationId"] for name in item.keys() & _METHODS}
            route = specification.base_path + path
            self._router.routes.append(Route(route, PathEndpoint(self._app, specification.base_path, operations)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or the lifespan."""
        await self._router(scope, receive, send)


class PathEndpoint:
    """ASGI application for one path: selects the operation by method, responds to OPTIONS, else raises a 405."""

    def __init__(self, app: ASGIApp, base_path: str, operations: Mapping[str, str]) -> None:
        self._app = app
        if "GET" in operations:
            operations = {"HEAD": operations["GET"], **operations}
        self._found = {
            method: {"api_base_path": base_path, "operation_id": operation} for method, operation in operations.items()
        }
        self._allow = ", ".join(sorted({*operations, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        found = self._found.get(scope["method"])
        if found is not None:
            # Some servers share `extensions` between requests, so each request gets its own.
            scope["extensions"] = {**(scope.get("extensions") or {}), ROUTING_CONTEXT: found}
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            headers = [(b"allow", self._allow.encode())]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            raise HTTPException(405, f"Expected one of the methods {self._allow}.", {"Allow": self._allow})
