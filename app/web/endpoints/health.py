"""Liveness and readiness probes."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.web.context import server_state
from app.web.endpoints.readiness import Readiness

_LIVE: Final = "/livez"
_READY: Final = "/readyz"
HEALTH_PATHS: Final = frozenset({_LIVE, _READY})


def health_routes(readiness: Readiness) -> list[Route]:
    """Return the routes of the probes.

    `/livez` always answers 200. `/readyz` answers 200 if the store answers reads, and 503 otherwise or during a
    shutdown.
    """

    async def live(_request: Request) -> Response:
        return _response(ok=True)

    async def ready(request: Request) -> Response:
        return _response(ok=not server_state(request.scope["state"]).is_stopping and await readiness.check())

    return [Route(_LIVE, live), Route(_READY, ready)]


def _response(*, ok: bool) -> Response:
    status, word = (200, "ok") if ok else (503, "unavailable")
    return JSONResponse({"status": word}, status, {"Cache-Control": "no-store"})
