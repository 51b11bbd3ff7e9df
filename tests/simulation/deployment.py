"""The base class of the deployments, which differ in their topology."""

import abc
import asyncio
import random
from collections.abc import Iterator, Sequence

from app.store.topology import Topology
from tests.simulation.clients import Worker
from tests.simulation.database import Database
from tests.simulation.journal import Disturbance
from tests.simulation.network import Network
from tests.simulation.server import Server


class Deployment(abc.ABC):
    """The servers of one run, and what goes wrong with them."""

    tenants: Sequence[str]
    hosts: Sequence[str]  # of the workers
    min_replicas: int = 0
    servers: Sequence[Server]
    pause: float  # in seconds, of a client between two operations
    failure_pause: float = 1.0  # in seconds, between two failures

    def __init__(self, network: Network, chance: random.Random) -> None:
        self.unsettled: list[tuple[float, float]] = []
        self._network = network
        self._chance = chance

    @abc.abstractmethod
    def topology(self, host: str) -> Topology:
        """Return the topology of a worker on `host`."""

    @abc.abstractmethod
    async def fail(self) -> None:
        """Let one thing go wrong, and repair it."""

    @abc.abstractmethod
    def survivor(self, tenant: str) -> Database:
        """Return the database that has the tenant's keys at the end."""

    def violations(self, workers: Sequence[Worker]) -> Iterator[str]:
        """Yield what contradicts the rules that only this deployment has."""
        return iter(())

    def _now(self) -> float:
        return self._network.loop.time()

    async def _pause(self, longest: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, longest))

    def _disturb(
        self,
        kind: str,
        start: float,
        hosts: Sequence[str] | None = None,
        tenants: Sequence[str] | None = None,
        *,
        hurts_reads: bool = True,
    ) -> None:
        """Note a disturbance from `start` until now."""
        self._network.journal.disturb(Disturbance(kind, start, self._now(), hosts, tenants, hurts_reads))

    async def _cut_link(self, primaries: Sequence[str], replicas: Sequence[str]) -> None:
        """Cut primaries off from their replicas for up to a second."""
        start = self._now()
        self._network.partition(primaries, replicas)
        await self._pause(1.0)
        self._network.heal()
        await asyncio.sleep(0.2)
        if self.min_replicas:
            self._disturb("no replica", start, hurts_reads=False)
