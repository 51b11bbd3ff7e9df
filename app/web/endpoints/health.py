"""What a platform asks to learn whether to restart the process, and whether to send it requests."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.errors import StoreError
from app.store import Store
from app.web.context import server_state

_LIVE: Final = "/livez"
_READY: Final = "/readyz"
HEALTH_PATHS: Final = frozenset({_LIVE, _READY})


def health_routes(store: Store) -> list[Route]:
    """`/livez`: the process answers. `/readyz`: the store does as well, and the process was not told to stop."""

    async def live(_request: Request) -> Response:
        return _answer(good=True)

    async def ready(request: Request) -> Response:
        return _answer(good=not server_state(request.scope["state"]).is_stopping and await _responds(store))

    return [Route(_LIVE, live), Route(_READY, ready)]


async def _responds(store: Store) -> bool:
    try:
        await store.ping()
    except StoreError:
        return False
    return True


def _answer(*, good: bool) -> Response:
    status, word = (200, "ok") if good else (503, "unavailable")
    return JSONResponse({"status": word}, status, {"Cache-Control": "no-store"})
