"""A checker for registers with versions. It decides if one register explains everything that the clients saw.

Behind several servers, a failover may lose changes. The checker is then given the lost changes, too.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

# A failed write has stored nothing. A write with an unknown outcome, or whose client left, may have happened or not.
Outcome = Literal["answered", "conflict", "failed", "unknown", "left"]


@dataclass(frozen=True, slots=True)
class Operation:
    """The request and the response of one client.

    `wanted` is None for a read. `expected` is None for a write without a condition. Only an answer has a version and a
    value, and a conflict has a version.
    """

    name: str
    start: float
    end: float = math.inf
    outcome: Outcome = "unknown"
    wanted: bool | None = None
    expected: int | None = None
    version: int | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A change in the history. `name` is the operation that made it, according to the history."""

    version: int
    enabled: bool
    name: str

    @classmethod
    def of(cls, change: Mapping[str, Any]) -> Self:
        """Return the entry of a change in a response of the history."""
        return cls(change["version"], change["enabled"], change["request_id"])


@dataclass(frozen=True, slots=True)
class Loss:
    """The effect of failovers and crashes: changes that were stored and then `lost`.

    `excused` has the names of the writes that may be lost even though they were answered. During the times in
    `unsettled`, clients may see a server that others have left, so nothing is promised about the order.
    """

    lost: Sequence[Entry] = ()
    excused: AbstractSet[str] = frozenset()
    unsettled: Sequence[tuple[float, float]] = ()


NO_LOSS: Final = Loss()


def violations(operations: Sequence[Operation], history: Sequence[Entry], loss: Loss = NO_LOSS) -> Iterator[str]:
    """Yield each contradiction. `history` is complete, oldest first. An unknown write may have happened or not."""
    yield from _history_violations(history)
    stored = [*history, *loss.lost]
    values = {0: False} | {entry.version: entry.enabled for entry in stored}
    for operation in operations:
        yield from _value_violations(operation, values)
    writes = {each.name: each for each in operations if each.wanted is not None}
    yield from _author_violations(writes, stored)
    yield from _conflict_violations(writes, stored, loss.lost)
    yield from _loss_violations(writes, loss)
    yield from _order_violations(operations, {entry.name for entry in history}, loss.unsettled)


def _history_violations(history: Sequence[Entry]) -> Iterator[str]:
    versions = [entry.version for entry in history]
    if versions != list(range(1, len(history) + 1)):
        yield f"the versions of the history do not rise by one: {_first_gap(versions)}"
    for before, after in itertools.pairwise([Entry(0, enabled=False, name=""), *history]):
        if before.enabled == after.enabled:
            yield f"version {after.version} is no change of {before.version}"


def _first_gap(versions: Sequence[int]) -> str:
    return next((f"{b} after {a}" for a, b in itertools.pairwise([0, *versions]) if b != a + 1), "it is empty")


def _value_violations(operation: Operation, values: dict[int, bool]) -> Iterator[str]:
    if operation.version is not None and operation.version not in values:
        yield f"{operation} saw a version that is not in the history"
    elif operation.outcome == "answered" and operation.version is not None:
        if values[operation.version] != operation.enabled:
            yield f"{operation} saw a value that differs from the history"
        if operation.wanted is not None and operation.wanted != operation.enabled:
            yield f"{operation} was answered with a value that it did not want"


def _author_violations(writes: dict[str, Operation], history: Sequence[Entry]) -> Iterator[str]:
    """Check that each change has one write that wanted it, was no conflict, and was answered with its version.

    A conditional write changed the version that it expected, or found the value that it wanted there.
    """
    made: dict[str, int] = {}
    for entry in history:
        write = writes.get(entry.name)
        if write is None or write.outcome in {"conflict", "failed"} or write.wanted != entry.enabled:
            yield f"{entry} was made by {write}"
        elif write.outcome == "answered" and write.version != entry.version:
            yield f"{entry} was made by {write}, which was answered with another version"
        elif write.expected not in {None, entry.version - 1}:
            yield f"{entry} was made by {write}, which expected another version"
        if entry.name in made:
            yield f"{entry} and version {made[entry.name]} have the same write"
        made[entry.name] = entry.version
    for write in writes.values():
        kept = write.version in {write.expected, made.get(write.name)}
        if write.outcome == "answered" and write.expected is not None and not kept:
            yield f"{write} was answered with neither its expected version nor its own change"


def _loss_violations(writes: dict[str, Operation], loss: Loss) -> Iterator[str]:
    """Check that no answered write was lost, except for those that are excused."""
    for entry in loss.lost:
        write = writes.get(entry.name)
        if write is not None and write.outcome == "answered" and entry.name not in loss.excused:
            yield f"{write} was answered, and {entry} was lost"


def _conflict_violations(writes: dict[str, Operation], stored: Sequence[Entry], lost: Sequence[Entry]) -> Iterator[str]:
    """Check that a conflict expected another version, or overlapped with a write that changed something.

    A conflict may name the version that it expected if that version was made meanwhile, for a client that knows a lost
    change with the same version, or if a rival's change was lost.
    """
    rivals = _Rivals(writes[entry.name] for entry in stored if entry.name in writes)
    for write in writes.values():
        if write.outcome != "conflict":
            continue
        if write.version == write.expected:
            entries = [*lost, *(entry for entry in stored if entry.version == write.expected)]
            explained = _Rivals(writes[entry.name] for entry in entries if entry.name in writes).overlap(write)
        else:
            explained = write.expected is not None or rivals.overlap(write)
        if not explained:
            yield f"{write} was a conflict without a rival write"


class _Rivals:
    """Writes that changed something."""

    def __init__(self, writes: Iterable[Operation]) -> None:
        by_start = sorted(writes, key=lambda each: each.start)
        self._starts = [each.start for each in by_start]
        # An unknown write may have taken effect at any time after its start.
        ends = [each.end if each.outcome == "answered" else math.inf for each in by_start]
        self._latest = list(itertools.accumulate(ends, max))

    def overlap(self, write: Operation) -> bool:
        """Return True if one of them may have taken effect while `write` was under way."""
        started = bisect.bisect_left(self._starts, write.end)
        return started > 0 and self._latest[started - 1] > write.start


def _order_violations(
    operations: Sequence[Operation], kept: AbstractSet[str], unsettled: Sequence[tuple[float, float]]
) -> Iterator[str]:
    """Check the order between two unsettled times. Answered writes that were kept are seen after them, too."""
    seen = [operation for operation in operations if operation.version is not None]
    starts = [-math.inf, *(end for _, end in unsettled)]
    ends = [*(start for start, _ in unsettled), math.inf]
    for start, end in zip(starts, ends, strict=True):
        settled = [each for each in seen if start <= each.start and each.end <= end]
        earlier = [each for each in seen if each.end < start and each.outcome == "answered" and each.name in kept]
        yield from _older_versions([*earlier, *settled])


def _older_versions(seen: Sequence[Operation]) -> Iterator[str]:
    """Check that no operation saw an older version than an operation that had ended before its start."""
    ended: Iterable[Operation] = iter(sorted(seen, key=lambda each: each.end))
    pending = next(iter(ended), None)
    newest: Operation | None = None
    for operation in sorted(seen, key=lambda each: each.start):
        while pending is not None and pending.end < operation.start:
            if newest is None or _version(pending) > _version(newest):
                newest = pending
            pending = next(iter(ended), None)
        if newest is not None and _version(operation) < _version(newest):
            yield f"{operation} saw an older version than {newest}, which had ended before"


def _version(operation: Operation) -> int:
    return operation.version or 0
