"""The replication from a primary to a replica."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.server import Server


class Replication:
    """The link from a primary to a replica: each log entry arrives some time later, and is confirmed after that."""

    def __init__(self, primary: "Server", replica: "Server") -> None:
        self.replica = replica
        self.confirmed = len(primary.log.entries)
        self._primary = primary
        self._applied = len(primary.log.entries)
        self._is_on = True
        self._is_busy = False
        primary.replicas.append(self)

    def wake(self) -> None:
        """Send what is new."""
        if not self._is_busy:
            self._is_busy = True
            network = self._primary.network
            network.loop.call_later(network.chance.expovariate(1 / 0.003), self._send)

    def end(self) -> None:
        """End the replication. What was not sent is not sent any more."""
        self._is_on = False
        if self in self._primary.replicas:
            self._primary.replicas.remove(self)

    def _send(self) -> None:
        network = self._primary.network
        if not self._is_on:
            return
        if network.is_cut(self._primary.host, self.replica.host) or not self.replica.is_up:
            network.loop.call_later(0.1, self._send)
            return
        self._is_busy = False
        end = len(self._primary.log.entries)
        for entry in self._primary.log.entries[self._applied : end]:
            self.replica.apply(entry)
        self._applied = end
        network.loop.call_later(network.chance.expovariate(1 / 0.002), self._confirm, end)

    def _confirm(self, offset: int) -> None:
        network = self._primary.network
        if network.is_cut(self._primary.host, self.replica.host):
            network.loop.call_later(0.1, self._confirm, offset)
        elif self._is_on:
            self.confirmed = max(self.confirmed, offset)
            self._primary.confirm()
