"""Connexion's routing, made to answer for a path as a whole."""

from collections import defaultdict
from typing import Any, cast

from connexion.middleware.routing import RoutingMiddleware
from connexion.spec import Specification
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.route_names import named


class ContractRouting(RoutingMiddleware):
    """Stands where Connexion has its RoutingMiddleware.

    A path is what it is: none is redirected for a slash at its end. What a document lacks goes to `others`; a method
    that a path lacks is a 405 with all that it has, and OPTIONS is answered with them.
    """

    def __init__(self, app: ASGIApp, *, others: ASGIApp) -> None:
        super().__init__(app)
        self._others = others
        self._confine(self.router)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or the lifespan.

        Connexion keeps what it learns about a request in `scope["extensions"]`, which some servers share between
        requests, so each request gets its own.
        """
        if scope["type"] == "http":
            scope["extensions"] = {**(scope.get("extensions") or {})}
        await super().__call__(scope, receive, send)

    def add_api(
        self,
        specification: Specification,
        base_path: str | None = None,
        arguments: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Registers a document, as Connexion does."""
        super().add_api(specification, base_path, arguments, **options)
        router = cast(Router, cast(Mount, self.router.routes[-1]).app)
        self._confine(router)
        methods = defaultdict[str, set[str]](set)
        for route in router.routes:
            if isinstance(route, Route):
                methods[route.path] |= route.methods or set()
        for path, allowed in methods.items():
            # Last, and without methods: Starlette would answer for the first route of the path alone.
            router.routes.append(Route(path, MethodNotAllowed(allowed)))
        router.routes[:] = named(router.routes, cast(Mount, self.router.routes[-1]).path)

    def _confine(self, router: Router) -> None:
        router.redirect_slashes = False
        router.default = self._elsewhere

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on the request as it came: below a document's base, Starlette has made the base part of the scope."""
        await self._others({**scope, "root_path": scope.get("app_root_path", "")}, receive, send)


class MethodNotAllowed:
    """Answers, on a path with the methods `allowed`, for every other."""

    def __init__(self, allowed: set[str]) -> None:
        self._allow = ", ".join(sorted(allowed | {"OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["method"] != "OPTIONS":
            raise HTTPException(405, f"Expected one of the methods {self._allow}.", {"Allow": self._allow})
        headers = [(b"allow", self._allow.encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
