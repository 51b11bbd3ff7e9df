"""The trace that a request belongs to, as W3C Trace Context defines it: https://www.w3.org/TR/trace-context/."""

import re
from collections.abc import Mapping

from starlette.types import Scope

from app.web.context import single_header

_VERSION_00 = re.compile(
    rb"00-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?P<parent_id>(?!0{16})[0-9a-f]{16})-[0-9a-f]{2}"
)  # fmt: skip


def trace_of(scope: Scope) -> Mapping[str, str]:
    """Return `trace_id` and `parent_id` from the `traceparent` header, or nothing if it is not valid and unique."""
    found = _VERSION_00.fullmatch(single_header(scope["headers"], b"traceparent"))
    return {name: value.decode("ascii") for name, value in found.groupdict().items()} if found else {}
