"""The name of the path that a request found, the same for all requests that found it: `/docs/{path}`."""

import re
from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Receive, Scope, Send

from app.web.context import request_context


def named(routes: Iterable[BaseRoute], base: str = "") -> list[BaseRoute]:
    """The same routes below `base`; whichever takes a request leaves its name."""
    return [NamedRoute(route, base + _template(route)) for route in routes]


def _template(route: BaseRoute) -> str:
    if isinstance(route, Mount):
        return f"{route.path}/{{path}}"
    if isinstance(route, Route):
        return re.sub(r":\w+}", "}", route.path)  # without Starlette's converters
    raise TypeError(f"no path is known of {type(route).__name__}")


class NamedRoute(BaseRoute):
    """A route that takes what `route` takes."""

    def __init__(self, route: BaseRoute, name: str) -> None:
        self._route = route
        self._name = name

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """What Starlette's Router asks first."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by Starlette's Router for a request that it matches, be it with another method."""
        request_context(scope).route = self._name
        await self._route.handle(scope, receive, send)
