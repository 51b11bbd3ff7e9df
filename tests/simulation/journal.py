"""A journal of one run: what the servers stored and lost, and what disturbed which host."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.register import Entry


@dataclass(frozen=True, slots=True)
class Stored:
    """A change that a primary has stored, and the ID of the change that it replaced (None for the first one)."""

    change_id: str = field(repr=False)  # differs from run to run, so that no text may contain it
    entry: Entry
    parent: str | None = field(repr=False)
    tenant: str
    server: str
    time: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A time in which operations may fail: those of some hosts or tenants, or all (None)."""

    kind: str
    start: float
    end: float
    hosts: Sequence[str] | None = None
    tenants: Sequence[str] | None = None
    hurts_reads: bool = True

    def __str__(self) -> str:
        whose = ", ".join([*(self.hosts or ["all hosts"]), *(self.tenants or [])])
        reads = "" if self.hurts_reads else "writes "
        return f"{self.kind}: may disturb {reads}of {whose} from {self.start:.4f} to {self.end:.4f}"

    @property
    def is_cut(self) -> bool:
        """Return True if one connection was cut at one moment."""
        return self.kind.startswith("cut ")


@dataclass
class Journal:
    """The record of one run. `trace` is called with each line of a readable account, if it is not None."""

    trace: Callable[[str], object] | None = None
    stored: dict[str, Stored] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    disturbances: list[Disturbance] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def record(self, server: str, key: bytes, value: bytes, old: bytes | None, time: float) -> None:
        """Record that a primary has stored `value`, unless it is the change that it had before."""
        fields = json.loads(value)
        parent = None if old is None else json.loads(old)["id"]
        if fields["id"] == parent:
            return
        if fields["id"] in self.stored:
            self.faults.append(f"{server} stored the change of {fields['request']} again at {time:.3f}")
        entry = Entry(fields["version"], fields["enabled"], fields["request"])
        tenant = key.decode().partition("{")[2].rstrip("}")
        self.stored[fields["id"]] = Stored(fields["id"], entry, parent, tenant, server, time)

    def drop(self, values: Sequence[bytes]) -> None:
        """Record that the servers have lost these stored values, because of a crash or a failover."""
        self.dropped.update(json.loads(value)["id"] for value in values)

    def disturb(self, disturbance: Disturbance) -> None:
        """Record that operations may fail."""
        self.disturbances.append(disturbance)
        self.note(disturbance.end, str(disturbance))

    def disturbances_of(self, host: str, tenant: str, start: float, end: float) -> list[Disturbance]:
        """Return what disturbed operations of `tenant` at `host` between `start` and `end`."""
        return [
            each
            for each in self.disturbances
            if each.start <= end
            and each.end >= start
            and (each.hosts is None or host in each.hosts)
            and (each.tenants is None or tenant in each.tenants)
        ]

    def note(self, time: float, line: str) -> None:
        """Add a line to the trace."""
        if self.trace is not None:
            self.trace(f"{time:9.4f} {line}")
