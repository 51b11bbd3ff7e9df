"""The peer of the benchmark: a common implementation of setting and events, with Starlette and sse-starlette.

Each event stream has its own subscription to the tenant's channel. There are no versions and no history, and a client
that reconnects has missed the events in between.
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
    """Return the setting."""
    return JSONResponse({"enabled": await _enabled(_tenant(request))})


async def change(request: Request) -> Response:
    """Store and publish a change."""
    tenant = _tenant(request)
    enabled = bool((await request.json())["enabled"])
    await _store.set(f"peer:{tenant}", json.dumps(enabled))
    await _store.publish(f"peer:{tenant}:changes", json.dumps(enabled))
    return JSONResponse({"enabled": enabled})


async def events(request: Request) -> Response:
    """Stream the current setting, then each change."""
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
