"""`/metrics`: the endpoint that Prometheus scrapes."""

import asyncio
import hmac
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.errors import RejectionReason, Unauthorized
from app.metrics import Metrics
from app.web.bearer_token import bearer_token
from app.web.endpoints.readiness import Readiness

METRICS_PATH: Final = "/metrics"


def metrics_route(metrics: Metrics, token: str, readiness: Readiness) -> Route:
    """Return the route of the endpoint. Requests must have `token` as their bearer token, else they get a 401.

    Each scrape checks `readiness`, so that the metric is current without any probe.
    """
    metrics.computed_gauge(
        "external_oms_ready", "1 if Redis answers reads, otherwise 0.", lambda: int(readiness.is_ready)
    )
    expected = token.encode()

    async def respond(request: Request) -> Response:
        given = bearer_token(request.scope["headers"]).encode("latin-1")
        if not hmac.compare_digest(given, expected):
            raise Unauthorized("The bearer token is not the value of METRICS_TOKEN.", RejectionReason.SIGNATURE)
        await readiness.check()
        content = await asyncio.to_thread(metrics.exposition)
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"}
        return Response(content, headers=headers)

    return Route(METRICS_PATH, respond)
