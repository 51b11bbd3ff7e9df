"""The bearer token in the `Authorization` header (RFC 6750)."""

from app.errors import RejectionReason, Unauthorized


def bearer_token(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the token of the `Authorization: Bearer …` header (RFC 6750, section 2.1).

    Raises Unauthorized if there is none, or more than one such header.
    """
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) > 1:
        raise Unauthorized("The request has more than one Authorization header.", RejectionReason.MALFORMED)
    scheme, _, token = given[0].decode("latin-1").partition(" ") if given else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized("A bearer token is required.", RejectionReason.MISSING)
    return token.strip(" ")
