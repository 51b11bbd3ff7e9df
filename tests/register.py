"""A checker for registers with versions: could one register have shown the clients what they saw."""

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["answered", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked for and saw.

    `wanted` is None for a read, `expected` for a write on no condition; an unknown outcome has seen nothing.
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
    """One change of the history, with the name of the operation that it says made it."""

    version: int
    enabled: bool
    name: str


def faults(operations: Sequence[Operation], history: Sequence[Entry]) -> Iterator[str]:
    """What cannot have happened. `history` is whole, oldest first; an unknown write may have happened or not."""
    yield from _faults_of_the_history(history)
    values = {0: False} | {entry.version: entry.enabled for entry in history}
    for operation in operations:
        yield from _faults_of_a_value(operation, values)
    yield from _faults_of_the_authors({each.name: each for each in operations if each.wanted is not None}, history)
    yield from _faults_of_the_order(operations)


def _faults_of_the_history(history: Sequence[Entry]) -> Iterator[str]:
    versions = [entry.version for entry in history]
    if versions != list(range(1, len(history) + 1)):
        yield f"the versions of the history do not rise by one: {_first_gap(versions)}"
    for before, after in itertools.pairwise([Entry(0, enabled=False, name=""), *history]):
        if before.enabled == after.enabled:
            yield f"version {after.version} is no change of {before.version}"


def _first_gap(versions: Sequence[int]) -> str:
    return next((f"{b} after {a}" for a, b in itertools.pairwise([0, *versions]) if b != a + 1), "it is empty")


def _faults_of_a_value(operation: Operation, values: dict[int, bool]) -> Iterator[str]:
    if operation.version is not None and operation.version not in values:
        yield f"{operation} saw a version that is not in the history"
    elif operation.outcome == "answered" and operation.version is not None:
        if values[operation.version] != operation.enabled:
            yield f"{operation} saw another value than the history has"
        if operation.wanted is not None and operation.wanted != operation.enabled:
            yield f"{operation} was answered with another value than it wanted"


def _faults_of_the_authors(writes: dict[str, Operation], history: Sequence[Entry]) -> Iterator[str]:
    """Each change was made by one write that wanted it, was not refused, and was told the change's version.

    A write on a condition changed the version that it expected, or found it to be what it wanted. One that was refused
    had expected another, or met a write that changed something meanwhile.
    """
    made: dict[str, int] = {}
    for entry in history:
        write = writes.get(entry.name)
        if write is None or write.outcome == "refused" or write.wanted != entry.enabled:
            yield f"{entry} was made by {write}"
        elif write.outcome == "answered" and write.version != entry.version:
            yield f"{entry} was made by {write}, which was told another version"
        elif write.expected not in {None, entry.version - 1}:
            yield f"{entry} was made by {write}, which expected another version"
        if entry.name in made:
            yield f"{entry} and version {made[entry.name]} were made by one write"
        made[entry.name] = entry.version
    for write in writes.values():
        kept = write.version in {write.expected, made.get(write.name)}
        if write.outcome == "answered" and write.expected is not None and not kept:
            yield f"{write} was answered with neither the version that it expected nor a change of its own"
    yield from _faults_of_the_refusals(writes.values(), [writes[name] for name in made if name in writes])


def _faults_of_the_refusals(writes: Iterable[Operation], changes: Sequence[Operation]) -> Iterator[str]:
    starting = sorted(changes, key=lambda each: each.start)
    starts = [each.start for each in starting]
    # An unknown write may have taken effect at any time after it began.
    ends = [each.end if each.outcome == "answered" else math.inf for each in starting]
    latest = list(itertools.accumulate(ends, max))
    for write in writes:
        if write.outcome != "refused":
            continue
        begun = bisect.bisect_left(starts, write.end)
        met = begun > 0 and latest[begun - 1] > write.start
        if write.version == write.expected or not (met or write.expected is not None):
            yield f"{write} was refused without a rival"


def _faults_of_the_order(operations: Sequence[Operation]) -> Iterator[str]:
    """No operation sees an older version than one that had ended before it began."""
    saw = [operation for operation in operations if operation.version is not None]
    ended: Iterable[Operation] = iter(sorted(saw, key=lambda each: each.end))
    pending = next(iter(ended), None)
    newest: Operation | None = None
    for operation in sorted(saw, key=lambda each: each.start):
        while pending is not None and pending.end < operation.start:
            if newest is None or _version(pending) > _version(newest):
                newest = pending
            pending = next(iter(ended), None)
        if newest is not None and _version(operation) < _version(newest):
            yield f"{operation} saw an older version than {newest}, which had ended before"


def _version(operation: Operation) -> int:
    return operation.version or 0
