"""Versions as entity tags, and the conditional headers `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1)."""

import re
from collections.abc import Iterable

from app.errors import BadRequest
from app.model import Expected
from app.web.context import Header, header_values

_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rb"[ \t,]*" + _TAG + rb"(?:[ \t]*,[ \t,]*" + _TAG + rb")*[ \t,]*")
_EACH = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_VERSION = re.compile(rb"0|[1-9][0-9]{0,17}")


def entity_tag(version: int | str) -> str:
    """Return the strong entity tag of a version."""
    return f'"{version}"'


def if_match(headers: Iterable[Header]) -> Expected:
    """Return the versions in `If-Match`, or None if the header is absent or `*`. Raises BadRequest if it is malformed.

    Weak tags, and tags that are no versions, match nothing (strong comparison).
    """
    condition = _condition(headers, b"if-match")
    if condition is None or condition == b"*":
        return None
    if not _TAGS.fullmatch(condition):
        raise BadRequest('If-Match: expected * or entity tags, such as "3".')
    return frozenset(int(tag) for weak, tag in _EACH.findall(condition) if not weak and _VERSION.fullmatch(tag))


def is_not_modified(headers: Iterable[Header], version: int | str) -> bool:
    """Return True if `If-None-Match` contains `version` (weak comparison). A malformed header is ignored."""
    condition = _condition(headers, b"if-none-match")
    if condition is None or not _TAGS.fullmatch(condition):
        return condition == b"*"
    return str(version).encode() in {tag for _, tag in _EACH.findall(condition)}


def _condition(headers: Iterable[Header], header: bytes) -> bytes | None:
    """Return the value of a header, whose lines are joined by commas (RFC 9110, section 5.3), or None."""
    lines = [value.strip(b" \t") for value in header_values(headers, header)]
    return b", ".join(lines) if lines else None
