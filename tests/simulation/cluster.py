"""A Redis Cluster of two shards, with slots that move, nodes that die, and partitions."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.store.cluster import ClusterTopology
from app.store.connections import ServerConnections
from app.store.pipeline import key_slot
from app.store.redis_url import HostPort
from app.store.topology import Topology
from tests.simulation.cluster_node import Claim, Node
from tests.simulation.connection import Connector
from tests.simulation.database import Database
from tests.simulation.deployment import Deployment
from tests.simulation.journal import Disturbance
from tests.simulation.network import Network
from tests.simulation.replication import Replication
from tests.simulation.server import Server

# In seconds: within this time, a worker follows the nodes that it reaches.
FOLLOW: Final = 2.0
_HALF: Final = 8192


@dataclass(frozen=True)
class ClusterOptions:
    """The settings and the nodes of a run on a cluster."""

    min_replicas: int = 0
    node: type[Node] = Node


class Cluster(Deployment):
    """A `Deployment` with the shards n1, n2 and n3, n4, and three workers.

    Each tenant begins on another shard. In a partition, w1 is cut off together with a primary, which accepts no writes
    then. Worker w3 reaches every node, also while they are cut off from each other.
    """

    tenants: Sequence[str] = ("t1", "t2")
    hosts: Sequence[str] = ("w1", "w2", "w3")

    def __init__(self, options: ClusterOptions, network: Network, chance: random.Random) -> None:
        super().__init__(network, chance)
        self.min_replicas = options.min_replicas
        self.pause = chance.choice([0.1, 0.35])
        self._slots = {tenant: key_slot(f"{{{tenant}}}".encode()) for tenant in self.tenants}
        bounds = [bound for slot in self._slots.values() for bound in (slot, slot + 1)]
        self._starts = sorted({0, _HALF, *bounds})
        self._nodes = [
            options.node(network, number, "primary" if number % 2 else "replica", self._starts)
            for number in (1, 2, 3, 4)
        ]
        self.servers: Sequence[Server] = self._nodes
        self._left: dict[str, tuple[Node, float]] = {}  # which node each tenant has left last, and when
        self._epoch = 1
        for primary, replica in ((0, 1), (2, 3)):
            Replication(self._nodes[primary], self._nodes[replica])
        for start in self._starts:
            for each in self._nodes:
                each.learn(start, Claim(self._nodes[0 if start < _HALF else 2], self._epoch))

    def topology(self, host: str) -> Topology:
        """See `Deployment`. Each worker starts with the nodes in another order."""
        connector = Connector(self._network, host)
        by_address: dict[HostPort, Node] = {node.address: node for node in self._nodes}

        def connections_to(address: HostPort) -> ServerConnections:
            return connector.to(by_address[address])

        return ClusterTopology([node.address for node in self._chance.sample(self._nodes, 4)], connections_to)

    async def fail(self) -> None:
        """See `Deployment`."""
        match self._chance.choice(["move", "move", "death", "partition", "partition", "hang", "link"]):
            case "move":
                await self._move(self._chance.choice(list(self.tenants)))
            case "hang":
                await self._hang()
            case "link":
                await self._cut_link(["n1", "n3"], ["n2", "n4"])
            case failover:
                await self._fail_over(is_partition=failover == "partition")

    async def _move(self, tenant: str) -> None:
        """Move the slot of a tenant to the other shard, as `redis-cli` does. That disturbs no operation."""
        slot = self._slots[tenant]
        source = self._owner(tenant)
        (target,) = (node for node in self._nodes if node.role == "primary" and node is not source)
        self._network.journal.note(self._now(), f"{tenant} moves from {source.name} to {target.name}")
        target.importing.add(slot)
        await self._pause(0.1)
        source.migrating[slot] = target
        await self._pause(0.1)
        while keys := [key for key in source.database.values if key_slot(key) == slot]:
            source.move_key(self._chance.choice(keys), target)
            await self._pause(0.05)
        self._epoch += 1
        claim = Claim(target, self._epoch)
        target.learn(slot, claim)
        target.importing.discard(slot)
        await self._pause(0.1)
        source.learn(slot, claim)
        del source.migrating[slot]
        self._left[tenant] = source, self._now()
        for node in self._nodes:
            self._gossip(target, node, [slot])

    async def _hang(self) -> None:
        """Let a primary hang. That disturbs only its own tenants."""
        start = self._now()
        node = self._owner(self._chance.choice(list(self.tenants)))
        node.hang()
        await self._pause(0.8)
        node.resume()
        self._disturb("hang", start, tenants=self._tenants_of(node))

    async def _fail_over(self, *, is_partition: bool) -> None:
        """Let a primary die or be cut off, and promote its replica. The primary comes back as a replica."""
        network = self._network
        start = self._now()
        old = self._owner(self._chance.choice(list(self.tenants)))
        (new,) = (replication.replica for replication in old.replicas)
        assert isinstance(new, Node)
        tenants = self._tenants_of(old)
        network.journal.note(start, f"failover from {old.name} to {new.name}")
        if is_partition:
            others = [node.host for node in self._nodes if node is not old]
            network.partition([old.host, "w1"], [*others, "w2"])
        else:
            old.crash(of_machine=True)
        await asyncio.sleep(1.0)  # cluster-node-timeout
        old.is_failing = True  # also after a restart, until it hears of the other nodes
        await self._pause(1.0)
        self._promote(old, new)
        promoted = self._now()
        await self._pause(6.0)
        network.heal()
        old.start()
        healed = self._now()
        await self._pause(1.0)
        for node in self._nodes:
            if node is not old:
                self._gossip(node, old, self._starts)
        old.synchronize(new)
        old.is_failing = False
        settled = max(self._now(), healed + FOLLOW, promoted + FOLLOW)
        journal = network.journal
        if is_partition:
            journal.disturb(Disturbance("partition", start, settled, ["w1"]))
        hosts = ["w2", "w3"] if is_partition else None
        journal.disturb(Disturbance("failover", start, promoted + FOLLOW, hosts, tenants))
        journal.disturb(Disturbance("failover", start, settled, None, tenants, hurts_reads=False))
        self.unsettled.append((start, settled))
        await asyncio.sleep(settled - self._now())

    def _promote(self, old: Node, new: Node) -> None:
        for replication in list(old.replicas):
            replication.end()
        new.role = "primary"
        self._epoch += 1
        starts = [start for start, claim in old.claims.items() if claim.owner is old]
        for start in starts:
            new.learn(start, Claim(new, self._epoch))
        for node in self._nodes:
            self._gossip(new, node, starts)

    def _gossip(self, source: Node, node: Node, starts: Sequence[int]) -> None:
        """Let `node` learn what `source` knows, once it reaches it."""

        def deliver() -> None:
            if node.is_up and not self._network.is_cut(source.host, node.host):
                for start in starts:
                    node.learn(start, source.claims[start])
            else:
                self._network.loop.call_later(0.3, deliver)

        self._network.loop.call_later(self._chance.uniform(0, 0.2), deliver)

    def _owner(self, tenant: str) -> Node:
        """Return the primary that has the tenant's slot."""
        slot = self._slots[tenant]
        (owner,) = (node for node in self._nodes if node.role == "primary" and node.owner(slot) is node)
        return owner

    def _tenants_of(self, node: Node) -> Sequence[str]:
        """Return the tenants whose keys are on `node`, or are there according to a worker's slot map."""
        since = self._now() - FOLLOW
        moved = [tenant for tenant, (source, time) in self._left.items() if source is node and time > since]
        return [*moved, *(tenant for tenant, slot in self._slots.items() if node.owner(slot) is node)]

    def survivor(self, tenant: str) -> Database:
        """See `Deployment`."""
        return self._owner(tenant).database
