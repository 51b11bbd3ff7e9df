"""Checks of a request's head that httptools does not make: RFC 9112, sections 3.2 and 6.1."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from app.web.context import Header
from app.web.middleware.error_responses import ErrorResponse

# Also the response to protocols and versions other than HTTP/1.1 and HTTP/1.0: the contract has no 505.
MALFORMED: Final = ErrorResponse(400, "Expected a valid HTTP/1.1 request.")
_ONE_HOST: Final = ErrorResponse(400, "Expected one Host header.")
_VALID_HOST: Final = ErrorResponse(400, "Expected a host name or IP address, and an optional port, in the Host header.")
# RFC 9112 recommends 501 for an unsupported coding, but the contract has no 501.
_ONLY_CHUNKED: Final = ErrorResponse(
    400, "Expected no Transfer-Encoding except chunked, in HTTP/1.1 and without Content-Length."
)

# RFC 3986, section 3.2.2: an IPv6 address in brackets, or a registered name, which includes IPv4 addresses. Each
# character matches only one alternative, so matching takes linear time.
_HOST: Final = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::(?P<port>[0-9]{0,5}))?"
)
_MAX_PORT: Final = 65535
_ABSOLUTE_FORM: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


class MalformedHead(Exception):
    """The head violates HTTP. `response` is the error response to send."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.message)
        self.response = response


def check_head(
    headers: Sequence[Header], version: str | None, valid_host: bytes | None
) -> tuple[bytes | None, int | None]:
    """Return the value of `Host`, None if absent, and the length of the body, None if it is chunked.

    Header names must be in lower case. `version` is None if it is not supported. `valid_host` is a value that was
    checked before, such as that of the previous request. Raises MalformedHead.
    """
    if version is None:
        raise MalformedHead(MALFORMED)
    fields = dict(headers)
    if len(fields) < len(headers):
        _check_repeated([name for name, _ in headers])
    host = fields.get(b"host")
    if host is None:
        if version != "1.0":
            raise MalformedHead(_ONE_HOST)
    elif host != valid_host and not is_valid_host(host):
        raise MalformedHead(_VALID_HOST)
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        return host, int(fields.get(b"content-length", 0))
    # Any other combination can smuggle a request past a proxy: sections 6.1 and 6.3.
    if coding.lower() != b"chunked" or version == "1.0" or b"content-length" in fields:
        raise MalformedHead(_ONLY_CHUNKED)
    return host, None


def target_host(target: bytes) -> bytes | None:
    """Return the host and port in a request target in absolute form, None in any other form. Raises MalformedHead."""
    match = _ABSOLUTE_FORM.match(target)
    if match is None:
        return None
    if not match[1] or not is_valid_host(match[1]):
        raise MalformedHead(_VALID_HOST)
    return match[1]


def with_path(target: bytes, method: bytes) -> bytes:
    """Return a request target in absolute form with a path: an empty one means `/`, or `*` for OPTIONS of the server.

    RFC 9112, sections 3.2.1, 3.2.2 and 3.2.4.
    """
    match = _ABSOLUTE_FORM.match(target)
    rest = target[match.end() :] if match else b"/"
    if not rest and method == b"OPTIONS":
        return b"*"
    return target if rest.startswith(b"/") else target[: len(target) - len(rest)] + b"/" + rest


def is_valid_host(value: bytes) -> bool:
    """Return True if `value` is a host with or without a port, or empty, as RFC 9112 allows."""
    match = _HOST.fullmatch(value)
    if match is None:
        return not value
    address, port = match["ipv6"], match["port"]
    if port and int(port) > _MAX_PORT:
        return False
    return address is None or _is_ipv6(address.decode())


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _check_repeated(names: Sequence[bytes]) -> None:
    if names.count(b"host") > 1:
        raise MalformedHead(_ONE_HOST)
    if names.count(b"transfer-encoding") > 1:
        raise MalformedHead(_ONLY_CHUNKED)
