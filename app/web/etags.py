"""Versions as entity tags, and the conditional headers `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1).

Proxies that compress a response change its tag: nginx makes it weak (`W/"3"`), Apache, Caddy and Jetty append the
coding (`"3-gzip"`, `"3;gzip"`). Clients send the changed tag back. Here, such a tag means the same as the original: it
names a version, and a version never has two values, in any coding. So `If-Match` needs no strong comparison.
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from app.errors import BadRequest
from app.model import NEVER_SET, Expected
from app.web.context import Header, header_values

_CODING: Final = rb"[-;:+._]{1,2}(?:x-)?(?:gzip|gz|br|brotli|zstd|deflate|compress|dcb|dcz|identity)"
_TAG: Final = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS: Final = re.compile(rb"[ \t,]*" + _TAG + rb"(?:[ \t]*,[ \t,]*" + _TAG + rb")*[ \t,]*")
_EACH: Final = re.compile(rb'"([\x21\x23-\x7e\x80-\xff]*?)(?:(?i:' + _CODING + rb'))?"')
_VERSION: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_CONDITIONS: Final = frozenset({b"if-match", b"if-none-match"})


@dataclass(frozen=True, slots=True)
class _AllExcept(Container[int]):
    """All versions except `versions`."""

    versions: frozenset[int]

    def __contains__(self, version: object) -> bool:
        return version not in self.versions


def entity_tag(version: int | str) -> str:
    """Return the strong entity tag of a version."""
    return f'"{version}"'


def expected_versions(headers: Iterable[Header]) -> Expected:
    """Return the versions that `If-Match` and `If-None-Match` allow a write to replace, or None for all.

    `If-None-Match: *` allows only a setting that was never set. Tags that are no versions match nothing. Raises
    BadRequest if a header is malformed.
    """
    conditions = [each for each in headers if each[0] in _CONDITIONS]
    if not conditions:
        return None
    match, none_match = _condition(conditions, b"if-match"), _condition(conditions, b"if-none-match")
    allowed: Expected = None
    if none_match == b"*":
        allowed = frozenset({NEVER_SET.version})
    elif none_match is not None:
        allowed = _AllExcept(_versions("If-None-Match", none_match))
    if match is None or match == b"*":
        return allowed
    versions = _versions("If-Match", match)
    return versions if allowed is None else frozenset(version for version in versions if version in allowed)


def is_not_modified(headers: Iterable[Header], version: int | str) -> bool:
    """Return True if `If-None-Match` contains `version`. A malformed header is ignored."""
    condition = _condition(headers, b"if-none-match")
    if condition is None or not _TAGS.fullmatch(condition):
        return condition == b"*"
    return str(version).encode() in _EACH.findall(condition)


def _versions(header: str, condition: bytes) -> frozenset[int]:
    if not _TAGS.fullmatch(condition):
        raise BadRequest(f'{header}: expected * or entity tags, such as "3".')
    return frozenset(int(tag) for tag in _EACH.findall(condition) if _VERSION.fullmatch(tag))


def _condition(headers: Iterable[Header], header: bytes) -> bytes | None:
    """Return the value of a header, whose lines are joined by commas (RFC 9110, section 5.3), or None."""
    lines = [value.strip(b" \t") for value in header_values(headers, header)]
    return b", ".join(lines) if lines else None
