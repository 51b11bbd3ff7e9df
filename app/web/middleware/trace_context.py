"""The trace that a request belongs to: W3C Trace Context, https://www.w3.org/TR/trace-context/."""

import re
from collections.abc import Mapping

from starlette.types import Scope

_VERSION_00 = re.compile(
    rb"00-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?P<parent_id>(?!0{16})[0-9a-f]{16})-[0-9a-f]{2}"
)  # fmt: skip


def trace_of(scope: Scope) -> Mapping[str, str]:
    """`trace_id` and `parent_id` as the request's one `traceparent` has them; nothing where that is not valid."""
    given = [value for name, value in scope["headers"] if name == b"traceparent"]
    found = _VERSION_00.fullmatch(given[0]) if len(given) == 1 else None
    return {name: value.decode("ascii") for name, value in found.groupdict().items()} if found else {}
