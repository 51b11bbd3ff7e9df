"""Finds the operation of a request by its path and method."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from connexion.middleware import SpecMiddleware
from connexion.operations import OpenAPIOperation
from connexion.spec import Specification
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]
# Returns an application that checks the requests of an operation before it passes them to the given application.
Validated = Callable[[OpenAPIOperation, ASGIApp], ASGIApp]

_METHODS: Final = frozenset({"delete", "get", "head", "options", "patch", "post", "put", "trace"})


class ContractRouting(SpecMiddleware):
    """Connexion middleware that replaces `RoutingMiddleware` and runs the lifespan `on_lifespan`.

    Connexion's middleware makes a route per method, so that `Allow` of a 405 is incomplete, and redirects paths with a
    trailing slash. This class makes one route per path. Paths that no document describes go to `fallback`.
    """

    def __init__(self, app: ASGIApp, *, validated: Validated, fallback: ASGIApp, on_lifespan: Lifespan) -> None:
        self._app = app
        self._validated = validated
        self._router = Router(redirect_slashes=False, default=fallback, lifespan=on_lifespan)

    def add_api(self, specification: Specification, **options: Any) -> None:
        """Add the paths of a document. Connexion calls it once per document."""
        for path, item in specification["paths"].items():
            endpoints: dict[str, ASGIApp] = {}
            for method in item.keys() & _METHODS:
                operation = OpenAPIOperation.from_spec(
                    specification, path=path, method=method, resolver=options["resolver"]
                )
                endpoints[method.upper()] = self._validated(operation, self._app)
            # First, because Connexion adds the contract last.
            self._router.routes.insert(0, Route(specification.base_path + path, PathEndpoint(endpoints)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or the lifespan."""
        await self._router(scope, receive, send)


class PathEndpoint:
    """ASGI application for one path: selects the operation by method, responds to OPTIONS, else raises a 405."""

    def __init__(self, endpoints: Mapping[str, ASGIApp]) -> None:
        self._endpoints = {"HEAD": endpoints["GET"], **endpoints} if "GET" in endpoints else endpoints
        self._allow = ", ".join(sorted({*self._endpoints, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"Allow": self._allow})(scope, receive, send)
        else:
            raise HTTPException(405, f"Expected one of the methods {self._allow}.", {"Allow": self._allow})
