"""OpenTelemetry's server span of each request."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.logs import bounded
from app.tracing import Attributes, Tracing
from app.web.context import UNMATCHED, request_context, route_template, single_header
from app.web.middleware.request_metrics import OTHER_METHOD, UNCOUNTED, known_method

_FAILED = 500


class ServerSpans:
    """Outermost middleware: one server span for each request, per OpenTelemetry's semantic conventions.

    Probes and requests for the metrics have no span. Requests that the server refuses have none either. The ASGI
    middleware of OpenTelemetry 0.66 is not used: it raises an exception for a `User-Agent` that is not UTF-8.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["path"] in UNCOUNTED:
            await self._app(scope, receive, send)
            return
        method = known_method(scope)
        name = "HTTP" if method == OTHER_METHOD else method
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        with self._tracing.span(name, "SERVER", _request_attributes(scope, method), headers) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                context, route = request_context(scope), route_template(scope)
                status = context.server_status or context.status
                if route != UNMATCHED:
                    span.update_name(f"{name} {route}")
                    span.set_attribute("http.route", route)
                if context.principal is not None:
                    span.set_attribute("external_oms.tenant", context.principal.tenant)
                if status:  # otherwise the client left
                    span.set_attribute("http.response.status_code", status)
                if status >= _FAILED:
                    self._tracing.fail(span, str(status), context.error_cause)


def _request_attributes(scope: Scope, method: str) -> Attributes:
    """Return the attributes that are known before the response. Texts of the client contain no token."""
    agent = single_header(scope["headers"], b"user-agent").decode("latin-1")
    return {
        "http.request.method": method,
        "url.path": bounded(scope["path"]),
        "url.scheme": scope["scheme"],
        "http.response.header.x-request-id": [request_context(scope).request_id],
        **({"user_agent.original": bounded(agent)} if agent else {}),
    }
