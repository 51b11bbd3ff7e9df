"""A checker for the audit log: compares its lines with the histories, and with what the clients saw."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tests.register import Operation

_COMMON: Final = ("version", "enabled", "changed_by", "reason", "request_id")

Fields = Mapping[str, Any]


def audit_lines(log: str) -> list[Fields]:
    """Return the audit lines of a JSON log, of all workers."""
    lines = [json.loads(line) for line in log.splitlines()]
    return [line for line in lines if line["event"] == "setting_changed"]


def audit_violations(
    lines: Iterable[Fields], changes: Mapping[str, Sequence[Fields]], operations: Iterable[Operation]
) -> Iterator[str]:
    """Yield each contradiction. `changes` has the complete history of each tenant. Each request has its own ID.

    Each stored change has exactly one line, with the same values. A line of another change says that its outcome is
    unknown, and its caller got neither an answer nor an error that says that nothing was stored.
    """
    stored = {(tenant, each["request_id"]): each for tenant, history in changes.items() for each in history}
    logged: dict[tuple[str, str], Fields] = {}
    outcomes = {each.name: each.outcome for each in operations}
    for line in lines:
        key = line["tenant"], line["request_id"]
        change = stored.get(key)
        if key in logged:
            yield f"{line} is a second line for {logged[key]}"
        if change is None and line["outcome"] != "unknown":
            yield f"{line} has no change in the history"
        if change is not None and [line.get(name) for name in _COMMON] != [change[name] for name in _COMMON]:
            yield f"{line} differs from {change}"
        outcome = outcomes[line["request_id"]]
        if outcome in {"conflict", "failed"} or (outcome == "answered" and line["outcome"] == "unknown"):
            yield f"{line} contradicts the response to its caller: {outcome}"
        logged[key] = line
    for key in stored.keys() - logged.keys():
        yield f"{stored[key]} of {key[0]} has no line"
