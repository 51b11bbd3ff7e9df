"""One Redis server that fails in one way after the other."""

import asyncio
import random
from collections.abc import Sequence

from app.store.topology import Topology
from tests.simulation.connection import Connector
from tests.simulation.database import Database
from tests.simulation.deployment import Deployment
from tests.simulation.log import Fsync
from tests.simulation.network import Network
from tests.simulation.server import Server


class OneServer(Deployment):
    """A `Deployment` with one server and two workers."""

    tenants: Sequence[str] = ("t0", "t1")
    hosts: Sequence[str] = ("w1", "w2")

    def __init__(self, server: type[Server], fsync: Sequence[Fsync], network: Network, chance: random.Random) -> None:
        super().__init__(network, chance)
        self._server = server(network, ("redis", 6379), "redis", "primary", chance.choice(fsync))
        self.pause = chance.choice([0.005, 0.05])
        self.failure_pause = chance.choice([0.2, 1.0])
        self._connectors = {host: Connector(network, host) for host in self.hosts}
        self.servers: Sequence[Server] = [self._server]

    def topology(self, host: str) -> Topology:
        """See `Deployment`."""
        return self._connectors[host].to(self._server)

    async def fail(self) -> None:
        """See `Deployment`."""
        server = self._server
        kind = self._chance.choice(["close", "kill", "crash", "hang", "full", "demote"])
        start, seconds = self._now(), self._chance.choice([0.02, 0.3, 1.2])
        if kind == "close":
            seconds = 0.0
            server.close_all()
        elif kind in {"kill", "crash"}:
            dropped = len(self._network.journal.dropped)
            server.crash(of_machine=kind == "crash")
            await asyncio.sleep(seconds)
            server.start()
            if len(self._network.journal.dropped) > dropped:
                self.unsettled.append((start, self._now()))
        elif kind == "hang":
            server.hang()
            await asyncio.sleep(seconds)
            server.resume()
        elif kind == "full":
            server.is_full = True
            await asyncio.sleep(seconds)
            server.is_full = False
        else:
            server.role = "replica"
            await asyncio.sleep(seconds)
            server.role = "primary"
        self._disturb(kind, start, hurts_reads=kind in {"close", "kill", "crash", "hang"})

    def survivor(self, tenant: str) -> Database:
        """See `Deployment`."""
        return self._server.database
