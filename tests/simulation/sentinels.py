"""A primary, a replica and three sentinels, with failovers and partitions."""

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.store.connections import ServerConnections
from app.store.pipeline import PipelineWork
from app.store.redis_url import HostPort, Quorum
from app.store.sentinel import SentinelTopology
from app.store.topology import Topology
from tests.simulation.clients import Worker
from tests.simulation.connection import Connector
from tests.simulation.database import Database, Reply
from tests.simulation.deployment import Deployment
from tests.simulation.journal import Disturbance
from tests.simulation.network import Network, Rates
from tests.simulation.replication import Replication
from tests.simulation.server import Server
from tests.simulation.session import Session

SERVICE: Final = "oms"
# In seconds: within this time, a worker follows the sentinels that it reaches, or notices that it reaches too few.
FOLLOW: Final = 2.0


class Sentinel(Server):
    """A sentinel. It names the primary that it has learned last. Single commands to it never go wrong."""

    def __init__(self, network: Network, host: str, primary: HostPort, replica: HostPort) -> None:
        super().__init__(network, (host, 26379), host)
        self.rates = Rates()
        self.primary = primary
        self.epoch = 0
        self._replica = replica
        self.commands[b"SENTINEL"] = self._sentinel

    def learn(self, primary: HostPort, replica: HostPort, epoch: int) -> None:
        """Name another primary from now on."""
        self.primary, self._replica, self.epoch = primary, replica, epoch

    def config_epoch(self) -> int:
        """Return the epoch of the configuration that this sentinel knows."""
        return self.epoch

    def _sentinel(self, session: Session, command: bytes, service: bytes) -> Reply:
        assert service == SERVICE.encode()
        host, port = (str(part).encode() for part in self.primary)
        epoch = str(self.config_epoch()).encode()
        if command == b"GET-MASTER-ADDR-BY-NAME":
            return [host, port]
        if command == b"MASTER":
            fields = {b"name": service, b"ip": host, b"port": port, b"flags": b"master", b"config-epoch": epoch}
            fields[b"num-other-sentinels"] = b"2"
            return [part for field in fields.items() for part in field]
        assert command == b"REPLICAS", command
        return [[b"ip", self._replica[0].encode(), b"port", str(self._replica[1]).encode()]]


@dataclass(slots=True)
class Deposed:
    """A primary that writes must have left: after `after`, workers on `hosts` write to it no more, until `until`."""

    server: str
    hosts: Sequence[str]
    after: float
    until: float = math.inf  # when it is a replica

    def concerns(self, server: str, host: str, time: float) -> bool:
        """Return True if a write at `time` was too late."""
        return server == self.server and host in self.hosts and self.after < time < self.until


@dataclass(frozen=True)
class SentinelOptions:
    """The settings and the sentinels of a run. `majority` says that writes need a majority of the sentinels."""

    min_replicas: int = 0
    majority: bool = True
    sentinel: type[Sentinel] = Sentinel


class Sentinels(Deployment):
    """A `Deployment` with servers a and b, sentinels s1 to s3, and three workers.

    Machine 1 has a, s1 and w1; machine 2 has b, s2 and w2; s3 is elsewhere. Worker w3 reaches every machine, also while
    they are cut off from each other.
    """

    tenants: Sequence[str] = ("t0", "t1")
    hosts: Sequence[str] = ("w1", "w2", "w3")

    def __init__(self, options: SentinelOptions, network: Network, chance: random.Random) -> None:
        super().__init__(network, chance)
        self.min_replicas = options.min_replicas
        self.pause = chance.choice([0.1, 0.35])
        self._majority = options.majority
        self._primary = Server(network, ("a", 6379), "a")
        self._replica = Server(network, ("b", 6379), "b", "replica")
        Replication(self._primary, self._replica)
        self._sentinels = [
            options.sentinel(network, host, self._primary.address, self._replica.address) for host in ("s1", "s2", "s3")
        ]
        self.servers: Sequence[Server] = [self._primary, self._replica, *self._sentinels]
        self._by_address = {each.address: each for each in self.servers}
        self._deposed: list[Deposed] = []
        self._epoch = 0

    def topology(self, host: str) -> Topology:
        """See `Deployment`. Each worker lists the sentinels in another order."""
        connector = Connector(self._network, host)
        sentinels = self._chance.sample(self._sentinels, len(self._sentinels))

        def connections_to(address: HostPort, on_connect: PipelineWork[None]) -> ServerConnections:
            return connector.to(self._by_address[address], on_connect)

        quorum: Quorum = "majority" if self._majority else "any"
        return SentinelTopology([connector.to(each) for each in sentinels], SERVICE, connections_to, quorum)

    async def fail(self) -> None:
        """See `Deployment`."""
        match self._chance.choice(["link", "sentinel", "planned", "death", "partition", "partition"]):
            case "link":
                await self._cut_link(["a"], ["b"])
            case "sentinel":
                await self._hang_sentinel()
            case kind:
                await self._fail_over(kind)

    async def _hang_sentinel(self) -> None:
        """Let one sentinel hang. That disturbs no operation."""
        sentinel = self._chance.choice(self._sentinels)
        sentinel.hang()
        await self._pause(2.0)
        sentinel.resume()

    async def _fail_over(self, kind: str) -> None:
        """Promote the replica: as an operator plans it, after the primary's death, or while its machine is cut off."""
        start, old, new = self._now(), self._primary, self._replica
        inside, outside, isolated = self._machines_around(old)
        is_partition = kind == "partition"
        self._network.journal.note(start, f"failover ({kind}) from {old.name} to {new.name}")
        if is_partition:
            others = [each.host for each in self._sentinels if each is not isolated]
            self._network.partition([old.host, inside, isolated.host], [new.host, outside, *others])
        elif kind == "death":
            old.crash(of_machine=True)
        if kind != "planned":
            await self._pause(2.0)
        self._promote([each for each in self._sentinels if not is_partition or each is not isolated])
        promoted = self._now() + 0.1  # when these sentinels know it
        following = [outside, "w3"] if is_partition else self.hosts
        self._deposed.append(Deposed(old.name, following, promoted + FOLLOW))
        if is_partition and self._majority:
            self._deposed.append(Deposed(old.name, [inside], start + FOLLOW))
        self._network.journal.disturb(Disturbance(kind, start, promoted + FOLLOW, following))
        await self._recover(kind, old)
        recovered = self._now()
        self._network.loop.call_later(self._chance.uniform(0, 1), self._tell, [isolated])
        await self._pause(3.0)  # until the sentinels make the old primary a replica
        old.synchronize(new)
        old.close_all()
        for deposed in self._deposed:
            deposed.until = min(deposed.until, self._now())
        self._disturb("demoted", self._now())
        settled = max(self._now(), recovered + FOLLOW, promoted + FOLLOW)
        await asyncio.sleep(settled - self._now())
        if is_partition:
            self._disturb("healed", recovered, [inside])
        self._disturb("failover", start, hurts_reads=False)
        self.unsettled.append((start, settled))

    def _machines_around(self, primary: Server) -> tuple[str, str, Sentinel]:
        """Return the worker on the primary's machine, the one on the replica's, and the primary's sentinel."""
        first, second, _ = self._sentinels
        return ("w1", "w2", first) if primary.host == "a" else ("w2", "w1", second)

    async def _recover(self, kind: str, old: Server) -> None:
        """Join the machines again, or start the old primary, after some time. It still takes itself for the primary."""
        if kind == "partition":
            await self._pause(2.0)
            if self._chance.random() < 0.5:
                await self._hang_sentinel()
            await self._pause(5.0)
            self._network.heal()
        elif kind == "death":
            await self._pause(2.0)
            old.start()

    def _promote(self, sentinels: Sequence[Sentinel]) -> None:
        """Make the replica the primary. The sentinels learn it within 0.1 seconds."""
        self._epoch += 1
        self._primary, self._replica = self._replica, self._primary
        for replication in list(self._replica.replicas):
            replication.end()
        self._primary.role = "primary"
        self._primary.close_all()
        for sentinel in sentinels:
            self._network.loop.call_later(self._chance.uniform(0, 0.1), self._tell, [sentinel])

    def _tell(self, sentinels: Sequence[Sentinel]) -> None:
        for sentinel in sentinels:
            sentinel.learn(self._primary.address, self._replica.address, self._epoch)

    def survivor(self, tenant: str) -> Database:
        """See `Deployment`."""
        return self._primary.database

    def violations(self, workers: Sequence[Worker]) -> Iterator[str]:
        """Yield answered writes that a primary has stored after the worker should have left it."""
        for stored in self._network.journal.stored.values():
            for worker in workers:
                if worker.answered(stored.entry.name):
                    for deposed in self._deposed:
                        if deposed.concerns(stored.server, worker.host, stored.time):
                            late = stored.time - deposed.after
                            yield f"{worker.host} has written {stored} to a deposed primary {late:.2f} s too late"
