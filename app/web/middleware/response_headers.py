"""Headers of every response: the request ID, the tenant and `X-Content-Type-Options`."""

from typing import Final

from app.web.context import Header, RequestContext

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")  # browsers must not guess another media type


def common_headers(context: RequestContext) -> tuple[Header, ...]:
    """Return the headers of every response to the request. `Oms-Tenant` requires a verified token."""
    request_id = (b"x-request-id", context.request_id.encode())
    if context.principal is None:
        return request_id, _NOSNIFF
    return request_id, _NOSNIFF, (b"oms-tenant", context.principal.tenant.encode())
