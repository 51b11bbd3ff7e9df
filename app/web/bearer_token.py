"""The bearer token in the `Authorization` header (RFC 6750)."""

from app.errors import RejectionReason, Unauthorized
from app.web.context import Header, header_values


def bearer_token(headers: list[Header]) -> str:
    """Return the token of the `Authorization: Bearer …` header (RFC 6750, section 2.1).

    Raises Unauthorized if there is none, or more than one such header.
    """
    given = header_values(headers, b"authorization")
    if len(given) > 1:
        raise Unauthorized("The request has more than one Authorization header.", RejectionReason.MALFORMED)
    scheme, _, token = given[0].decode("latin-1").partition(" ") if given else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized("A bearer token is required.", RejectionReason.MISSING)
    return token.strip(" ")
