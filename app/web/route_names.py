"""Records the template of the path that matched a request, such as `/docs/{path}`, for logs and metrics."""

import re
from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Receive, Scope, Send

from app.web.context import request_context


def named_routes(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """Return `routes`, wrapped so that each records its template. Raises TypeError unless all are Route or Mount."""
    return [NamedRoute(route, _template(route)) for route in routes]


def _template(route: BaseRoute) -> str:
    if isinstance(route, Mount):
        return f"{route.path}/{{path}}"
    if isinstance(route, Route):
        return re.sub(r":\w+}", "}", route.path)  # remove Starlette's converters
    raise TypeError(f"expected a Route or a Mount, found {type(route).__name__}")


class NamedRoute(BaseRoute):
    """A route that wraps `route` and sets `RequestContext.route` to `name` for each request that it handles."""

    def __init__(self, route: BaseRoute, name: str) -> None:
        self._route = route
        self._name = name

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return the match of the wrapped route. Starlette's Router calls it."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record the name and handle the request, also if only its path matches. Starlette's Router calls it."""
        request_context(scope).route = self._name
        await self._route.handle(scope, receive, send)
