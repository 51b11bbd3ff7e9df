"""The rules that a run must keep, in addition to those of `tests.register`."""

from collections.abc import Iterator, Sequence
from typing import Final

from tests.register import Operation
from tests.simulation.clients import Listener
from tests.simulation.journal import Journal, Stored

# In seconds: how long an operation may still suffer from a disturbance that is over.
AFTERMATH: Final = 0.01


def listener_violations(
    listener: Listener, journal: Journal, history: Sequence[Stored], unsettled: Sequence[tuple[float, float]]
) -> Iterator[str]:
    """Yield each contradiction between what a listener heard and what was stored. `history` is what is left at the end.

    Each event follows the change before it. If the history was replaced, a reset says so. A reset is also right in an
    unsettled time, in which a worker may still read from a server that another worker has left.
    """
    stored = {each.entry.name: each for each in journal.stored.values() if each.tenant == listener.tenant}
    is_replaced = any(each.change_id in journal.dropped for each in stored.values())
    last: str | None = None  # the change ID of the last event; "" for a setting that was never set
    for event in listener.events:
        change = stored.get(event.name)
        if event.version and (change is None or change.entry.version != event.version):
            yield f"{listener.tenant}: heard {event}, which no server has stored"
            return
        parent = None if change is None else change.parent or ""
        is_settled = not any(start <= event.time <= end for start, end in unsettled)
        if event.is_reset and not is_replaced and is_settled:
            yield f"{listener.tenant}: {event}, although no change was lost"
        if not event.is_reset and event.stream != "new" and parent != last:
            yield f"{listener.tenant}: heard {event}, which does not follow the event before it"
        last = "" if change is None else change.change_id
    newest = history[-1].change_id if history else ""
    if last != newest:  # also if it has heard nothing
        stream = "an earlier stream" if listener.is_new else "its stream"
        last_event = f"the last event, of {stream}, is {listener.events[-1:]}"
        yield f"{listener.tenant}: at the end, {last_event}, but current is {history[-1:]}"


def availability_violations(operations: Sequence[Operation], host: str, tenant: str, journal: Journal) -> Iterator[str]:
    """Yield each failed operation of a tenant's clients at `host`, if the store answered or answered again in time.

    A read without a disturbance succeeds. A write whose change was stored is answered if its connection was cut and
    nothing else was disturbed.
    """
    names = {each.entry.name for each in journal.stored.values()}
    for operation in operations:
        if operation.outcome not in {"failed", "unknown"}:
            continue
        disturbances = journal.disturbances_of(host, tenant, operation.start - AFTERMATH, operation.end)
        if operation.wanted is None:
            disturbances = [each for each in disturbances if each.hurts_reads]
        is_stored = operation.outcome == "unknown" and operation.name in names
        if not disturbances:
            yield f"{operation} at {host} failed although nothing was disturbed"
        elif is_stored and [each.is_cut for each in disturbances] == [True]:
            yield f"{operation} at {host} was stored, and stayed unknown although only one connection was cut"
