"""The header `Change-Reason`: the reason for a change, percent-encoded as RFC 5023 (9.7.1) defines for `Slug`."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from app.errors import BadRequest
from app.model import MAX_REASON, is_reason
from app.web.context import Header, header_values

_ENCODED: Final = re.compile(rb"(?:[\x20-\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*")
_EXPECTED: Final = (
    f"Change-Reason: expected one header of 1 to {MAX_REASON} printable characters in UTF-8. All except printable "
    "ASCII, and the percent sign, must be percent-encoded, such as caf%C3%A9."
)


def change_reason(headers: Iterable[Header]) -> str | None:
    """Return the reason that `Change-Reason` gives, or None without the header. Raises BadRequest if it is malformed.

    The reason is printable: it has no control characters, line ends, direction marks or lone surrogates.
    """
    values = header_values(headers, b"change-reason")
    if not values:
        return None
    try:
        reason = unquote_to_bytes(values[0]).decode()
    except UnicodeDecodeError as error:
        raise BadRequest(_EXPECTED) from error
    if len(values) > 1 or not _ENCODED.fullmatch(values[0]) or not is_reason(reason):
        raise BadRequest(_EXPECTED)
    return reason
