"""The peer of the benchmark: the setting and its events as they are usually written, with Starlette and sse-starlette.

Each listener has a subscription of its own to the channel of its tenant. There are no versions, no history, and nothing
is sent again that was not heard.
"""

import json
import os
from collections.abc import AsyncIterator

import jwt
import redis.asyncio
import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PATH = "/v0/config/sales_order/external_oms"

_store = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], max_connections=100_000)


async def read(request: Request) -> Response:
    """The setting."""
    return JSONResponse({"enabled": await _enabled(_tenant(request))})


async def change(request: Request) -> Response:
    """Makes a change, and publishes it."""
    tenant = _tenant(request)
    enabled = bool((await request.json())["enabled"])
    await _store.set(f"peer:{tenant}", json.dumps(enabled))
    await _store.publish(f"peer:{tenant}:changes", json.dumps(enabled))
    return JSONResponse({"enabled": enabled})


async def events(request: Request) -> Response:
    """First what stands, then each change."""
    response: Response = EventSourceResponse(_events(_tenant(request)))
    return response


async def _events(tenant: str) -> AsyncIterator[dict[str, str]]:
    async with _store.pubsub() as subscription:
        await subscription.subscribe(f"peer:{tenant}:changes")
        async for message in subscription.subscribe():
            enabled = await _enabled(tenant) if message["type"] == "subscribe" else json.loads(message["data"])
            yield {"event": "change", "data": json.dumps({"enabled": enabled})}


async def _enabled(tenant: str) -> bool:
    return bool(json.loads(await _store.get(f"peer:{tenant}") or "false"))


def _tenant(request: Request) -> str:
    token = request.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, os.environ["JWT_SECRET"], algorithms=["HS256"], options={"require": ["exp"]})
    return str(claims["tenant"])


if __name__ == "__main__":
    routes = [Route(PATH, read), Route(PATH, change, methods=["POST"]), Route(f"{PATH}/events", events)]
    uvicorn.run(
        Starlette(routes=routes),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        http="httptools",
        loop="uvloop",
        workers=1,
        access_log=False,
        log_level="warning",
    )
