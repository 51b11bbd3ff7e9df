"""The log of a server: everything that it has written since it was empty, on its disk or not yet."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.simulation.database import WRITES, Command, Database

# When the log is synced to the disk: at each write, once a second, or never (there are only snapshots).
Fsync = Literal["always", "everysec", "none"]


@dataclass(frozen=True, slots=True, eq=False)
class LogEntry:
    """One transaction: its writes and messages. Replicas and the disk have it as a whole or not at all."""

    time: float
    commands: Sequence[Command]


class Log:
    """The entries of one server. Their number is its replication offset."""

    def __init__(self, fsync: Fsync) -> None:
        self.entries: list[LogEntry] = []
        self._fsync = fsync

    def lose(self, chance: random.Random, now: float, *, of_machine: bool) -> Sequence[LogEntry]:
        """Remove and return what a crash of the process, or of the machine with it, loses."""
        kept = len(self.entries)
        if self._fsync == "none":
            kept = chance.randint(0, kept)  # as of the last snapshot
        elif self._fsync == "everysec" and of_machine:
            synced = now - chance.uniform(0, 2)
            kept = sum(entry.time <= synced for entry in self.entries)
        lost, self.entries = self.entries[kept:], self.entries[:kept]
        return lost

    def replace(self, primary: "Log") -> Sequence[LogEntry]:
        """Become a copy of the primary's log. Return the entries that the primary does not have."""
        both = zip(self.entries, primary.entries, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], both))
        lost, self.entries = self.entries[common:], list(primary.entries)
        return lost

    def replay(self) -> Database:
        """Return the database that the entries make."""
        database = Database()
        for entry in self.entries:
            for command in entry.commands:
                if command[0] in WRITES:
                    database.run(command)
        return database


def stores_a_change(command: Command) -> bool:
    """Return True for a SET of a tenant's setting."""
    key: bytes = command[1]
    return command[0] == b"SET" and key.startswith(b"external_oms:{") and key.endswith(b"}")


def changes_of(tenant: str, database: Database) -> Iterator[bytes]:
    """Yield the stored changes of a tenant, oldest first."""
    key = b"external_oms:{%s}" % tenant.encode()
    history: Any = database.values.get(key + b":history", {})
    yield from (history[version] for version in sorted(history, key=int))
    newest: Any = database.values.get(key)
    if newest is not None:
        yield newest
