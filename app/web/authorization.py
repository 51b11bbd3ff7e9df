"""The `Authorization` header of a request: RFC 6750."""

from app.errors import MissingToken, Unauthorized


def bearer_token(headers: list[tuple[bytes, bytes]]) -> str:
    """The token of the one `Authorization: Bearer …` header: RFC 6750, section 2.1."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) > 1:
        raise Unauthorized("There is more than one Authorization header.")
    scheme, _, token = given[0].decode("latin-1").partition(" ") if given else ("", "", "")
    if scheme.lower() != "bearer":
        raise MissingToken("A bearer token is required.")
    return token.strip(" ")
