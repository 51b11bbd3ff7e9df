"""Headers of every response: the request ID and `X-Content-Type-Options`."""

from typing import Final

from app.web.context import Header

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")  # browsers must not guess another media type


def common_headers(request_id: str) -> tuple[Header, ...]:
    """Return the headers of every response to the request with this ID."""
    return (b"x-request-id", request_id.encode()), _NOSNIFF
