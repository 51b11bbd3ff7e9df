"""Figures of a partition: what was acknowledged, and what the history of the survivors holds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.partitions.clients import Change, Received, WorkerClients
from tests.register import Operation

History = Mapping[int, Change]


@dataclass(frozen=True)
class Period:
    """When the network was cut and healed, and when the clients stopped, by the monotonic clock.

    From `steady` on, every worker did what its place demands.
    """

    cut: float
    steady: float
    healed: float
    end: float


@dataclass(frozen=True)
class Figures:
    """The figures of one worker. Times are in seconds."""

    acknowledged: int
    acknowledged_in_cut: int
    acknowledged_when_steady: int
    reads_when_steady: int
    lost: int
    last_lost: float  # after the cut; 0 if no write was lost
    relapses: int  # writes that were lost although the worker had written to the new primary before
    lost_reads: int
    longest_pause: float  # without an acknowledged write
    streams: int
    reset_streams: int
    ended_streams: int
    silent_streams: int  # streams that kept lost changes
    kept_changes: int
    stale_streams: int  # streams whose last event is not the current setting of the survivors


def figures(clients: WorkerClients, period: Period, histories: Mapping[str, History]) -> Figures:
    """Compare what the clients of one worker saw with the histories of the survivors."""
    acknowledged = clients.acknowledged()
    surviving = {change.name for tenant in clients.tenants for change in histories[tenant].values()}
    lost = [each for each in acknowledged if each.name not in surviving]
    followed = min((e.end for e in acknowledged if e.name in surviving and e.start > period.cut), default=period.end)
    times = [period.cut, *(each.end for each in acknowledged if each.end > period.cut), period.end]
    logs = clients.received
    kept = [kept_changes(log.events, histories[log.tenant]) for log in logs]
    return Figures(
        acknowledged=len(acknowledged),
        acknowledged_in_cut=sum(period.cut < each.end <= period.healed for each in acknowledged),
        acknowledged_when_steady=sum(period.steady < each.end <= period.healed for each in acknowledged),
        reads_when_steady=sum(period.steady < each.end <= period.healed for each in clients.reads()),
        lost=len(lost),
        last_lost=max((each.end - period.cut for each in lost), default=0.0),
        relapses=sum(each.start > followed for each in lost),
        lost_reads=sum(lost_reads(each, surviving) for each in clients.operations.values()),
        longest_pause=max(after - before for before, after in itertools.pairwise(times)),
        streams=len(logs),
        reset_streams=sum(any(event.is_reset for event in log.events) for log in logs),
        ended_streams=sum(any(end > period.cut for end in log.ends) for log in logs),
        silent_streams=sum(number > 0 for number in kept),
        kept_changes=sum(kept),
        stale_streams=sum(not is_current(log.events, histories[log.tenant]) for log in logs),
    )


def lost_reads(operations: Sequence[Operation], surviving: set[str]) -> int:
    """Return how many reads of one client returned a value that it wrote and that the survivors do not have."""
    written: dict[int, str] = {}  # the last write of this client that made, or may have made, each version
    count = 0
    for each in operations:
        if each.wanted is None:
            count += each.version in written and written[each.version] not in surviving
        elif each.outcome != "conflict" and each.expected is not None:
            if each.name in surviving:
                written.clear()  # from now on, the client sees the survivors
            written[each.expected + 1] = each.name
    return count


def kept_changes(events: Sequence[Received], history: History) -> int:
    """Return how many of the events since the last reset are changes that the survivors do not have."""
    kept = 0
    for event in events:
        kept = (0 if event.is_reset else kept) + (not _survives(event, history))
    return kept


def is_current(events: Sequence[Received], history: History) -> bool:
    """Return True if the last event is the newest change in the history."""
    return bool(events) and events[-1].version == max(history, default=0) and _survives(events[-1], history)


def _survives(event: Received, history: History) -> bool:
    if event.version == 0:
        return True
    return event.version in history and history[event.version].changed_at == event.changed_at
