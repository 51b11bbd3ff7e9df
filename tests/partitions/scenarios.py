"""Partitions of a primary with sentinels and of a cluster, with workers on each side."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import httpx

from tests.partitions.clients import WorkerClients
from tests.partitions.figures import Figures, Period, figures
from tests.partitions.network import Machine, Network, network
from tests.processes import Service
from tests.topologies import Node, Option, cluster, sentinel_store
from tests.waiting import eventually

# In milliseconds. With this timeout, there is no failover before the cut, also on a busy machine.
_NEVER: Final = 600_000

Side = Literal["old", "both", "new"]
Demand = Literal["follows", "stops", "continues"]


@dataclass(frozen=True)
class Place:
    """A worker: its settings, and the sides of the cut that it reaches.

    "old" is the side of the old primary, with a minority. "new" is the side that elects another primary. During the
    cut, the worker must write to the new primary ("follows"), refuse writes ("stops"), or acknowledge writes somewhere
    ("continues").
    """

    name: str
    side: Side
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    demand: Demand = "follows"


@dataclass(frozen=True)
class Run:
    """The load on each worker, and the length of the cut in seconds.

    Without `seconds`, the cut lasts until each worker does what its place demands.
    """

    clients: int = 2
    interval: float = 0.1  # in seconds, from one write of a client to the next
    seconds: float | None = None


@dataclass(frozen=True)
class Result:
    """The figures and the log of one worker."""

    place: Place
    figures: Figures
    is_steady: bool  # it did what its place demands before the network was healed
    log: str


ANY: Final = {"REDIS_SENTINEL_QUORUM": "any"}
REPLICAS: Final = {"REDIS_MIN_REPLICAS": "1"}
# The last one follows the event streams of all tenants. It also reads the history of the survivors.
SENTINEL_PLACES: Final = (
    Place("cut off, majority", "old", demand="stops"),
    Place("cut off, any", "old", ANY, demand="continues"),
    Place("cut off, any, 1 replica", "old", ANY | REPLICAS, demand="stops"),
    Place("reaches both, majority", "both"),
    Place("reaches both, any", "both", ANY),
    Place("reaches both, majority, 1 replica", "both", REPLICAS),
    Place("survivors, 1 replica", "new", REPLICAS),
    Place("survivors", "new"),
)
CLUSTER_PLACES: Final = (
    Place("cut off", "old", demand="stops"),
    Place("cut off, 1 replica", "old", REPLICAS, demand="stops"),
    Place("survivors, 1 replica", "new", REPLICAS, demand="stops"),  # the shard has no other replica
    Place("survivors", "new"),
)


@dataclass(frozen=True)
class _Servers:
    """The servers of a scenario."""

    url: str
    has_failed_over: Callable[[], bool]  # the new side has another primary
    are_healed: Callable[[], bool]  # the old primary is a replica that has caught up
    set_timeout: Callable[[int], None]  # milliseconds of silence until a server counts as down
    tenants: Callable[[int], list[str]]


def partition_sentinels(
    directory: Path,
    how: Run,
    *,
    places: Sequence[Place] = SENTINEL_PLACES,
    options: tuple[Option, ...] = (),
) -> dict[str, Result]:
    """Cut a primary off with one of three sentinels, and heal the network. Two replicas are on the other side."""
    with network(3) as net:
        old, _, new = net.machines
        with sentinel_store(directory, (old, new, new), (old, new, new), options) as store:
            if how.seconds is None:
                for each in store.sentinels:  # they demote the old primary within a second, not ten
                    each.ask("SENTINEL", "DEBUG", "publish-period", 200, "info-period", 500)
            servers = _Servers(
                url=store.url,
                has_failed_over=lambda: store.primary(1) is not store.servers[0],
                are_healed=lambda: sum(_follows(each, store.primary(1)) for each in store.servers) == 2,
                set_timeout=lambda timeout: _on_each(
                    store.sentinels, "SENTINEL", "SET", "oms", "down-after-milliseconds", timeout
                ),
                tenants=lambda number: [f"tenant-{n}" for n in range(number)],
            )
            return _cut_and_heal(directory, net, servers, places, how)


def partition_cluster(directory: Path, how: Run, *, places: Sequence[Place] = CLUSTER_PLACES) -> dict[str, Result]:
    """Cut the primary of one shard off, and heal the network. Its replica and two more primaries are on the other side.

    All tenants are in that shard.
    """
    with network(3) as net:
        old, _, new = net.machines
        with cluster(directory, (old, new, new)) as store:
            replica = store.add_replica(store.nodes[0], directory / "replica", new)
            try:
                servers = _Servers(
                    url=store.url,
                    has_failed_over=lambda: replica.ask("ROLE")[0] == "master",
                    are_healed=lambda: _follows(store.nodes[0], replica),
                    set_timeout=lambda timeout: _on_each(
                        [*store.nodes, replica], "CONFIG", "SET", "cluster-node-timeout", timeout
                    ),
                    tenants=lambda number: store.tenants_of(store.nodes[0], number),
                )
                return _cut_and_heal(directory, net, servers, places, how)
            finally:
                replica.stop()


def _on_each(nodes: Sequence[Node], *command: object) -> None:
    for node in nodes:
        node.ask(*command)


def _follows(replica: Node, primary: Node) -> bool:
    role, *details = replica.ask("ROLE")
    return bool(role == "slave" and details[:3] == [primary.host.address, primary.port, "connected"])


def _cut_and_heal(
    directory: Path, net: Network, servers: _Servers, places: Sequence[Place], how: Run
) -> dict[str, Result]:
    with _workers(directory, net, servers, places, how) as workers:
        survivors = workers[places[-1]]
        if how.seconds is None:
            servers.set_timeout(_NEVER)
        assert eventually(lambda: all(len(each.acknowledged()) > 5 * how.clients for each in workers.values()))

        net.cut(net.machines[0], net.machines[2])
        cut = time.monotonic()
        if how.seconds is None:
            servers.set_timeout(1000)
        assert eventually(servers.has_failed_over)
        unsteady = set(places) if how.seconds is None else set()
        with _rivals(workers, survivors):
            _wait_until_steady(unsteady, workers, survivors, time.monotonic())
            steady = time.monotonic()
            if how.seconds is None:
                # Each client reads and tries to write a few times more.
                assert eventually(lambda: all(each.operations_since(steady) > 6 for each in workers.values()))
            else:
                time.sleep(max(0.0, cut + how.seconds - steady))
        for clients in workers.values():
            clients.leave()
        net.heal()
        healed = time.monotonic()

        if how.seconds is None:
            servers.set_timeout(5000)
        assert eventually(servers.are_healed)
        again = time.monotonic()
        assert eventually(lambda: all(_has_stored(each, survivors, again) for each in workers.values()))
        for clients in workers.values():
            clients.come_back()
            clients.stop_writing()
        period = Period(cut, steady, healed, time.monotonic())
        histories = {tenant: survivors.history(tenant) for tenant in survivors.followed}
        eventually(lambda: not any(figures(each, period, histories).stale_streams for each in workers.values()))
        return {
            place.name: Result(place, figures(clients, period, histories), place not in unsteady, clients.service.log)
            for place, clients in workers.items()
        }


@contextlib.contextmanager
def _workers(
    directory: Path, net: Network, servers: _Servers, places: Sequence[Place], how: Run
) -> Iterator[dict[Place, WorkerClients]]:
    """Start a worker for each place, and its clients. The clients of the last one follow all tenants."""
    machines: dict[Side, Machine] = dict(zip(("old", "both", "new"), net.machines, strict=True))
    tenants = servers.tenants(how.clients * len(places))
    common = {"HISTORY_LENGTH": "100000", "LOG_LEVEL": "WARNING"}
    workers: dict[Place, WorkerClients] = {}
    with contextlib.ExitStack() as stack:
        for number, place in enumerate(places):
            own = tenants[number * how.clients : (number + 1) * how.clients]
            service = Service(directory / f"log-{number}", servers.url, **common, **place.settings)
            followed = tenants if place is places[-1] else own
            workers[place] = WorkerClients(machines[place.side], service, own, followed, how.interval)
            stack.push(service)
        with ThreadPoolExecutor(len(places)) as pool:
            list(pool.map(lambda clients: clients.host.run(clients.service.start), workers.values()))
        for clients in workers.values():
            stack.callback(clients.stop)
            clients.start()
        yield workers


@contextlib.contextmanager
def _rivals(workers: Mapping[Place, WorkerClients], survivors: WorkerClients) -> Iterator[None]:
    """Write the settings of the clients that are cut off, on the other side. Versions that are lost are used again."""
    tenants = [t for place, clients in workers.items() if place.side == "old" for t in clients.tenants]
    rivals = WorkerClients(survivors.host, survivors.service, tenants, (), survivors.interval / 2, "rival")
    rivals.start()
    try:
        yield
    finally:
        rivals.stop()


def _wait_until_steady(
    unsteady: set[Place], workers: Mapping[Place, WorkerClients], survivors: WorkerClients, failed_over: float
) -> None:
    """Remove each place from `unsteady` once its worker does what the place demands. Return if all do, or at last."""

    def is_steady(place: Place) -> bool:
        clients = workers[place]
        match place.demand:
            case "follows":
                return _has_stored(clients, survivors, failed_over)
            case "stops":
                return clients.refuses()
            case "continues":
                return bool(clients.acknowledged(failed_over))

    def all_are_steady() -> bool:
        unsteady.difference_update([place for place in unsteady if is_steady(place)])
        return not unsteady

    eventually(all_are_steady)


def _has_stored(clients: WorkerClients, survivors: WorkerClients, since: float) -> bool:
    """Return True if the survivors have the last write of each client, and it was acknowledged after `since`."""
    last = {tenant: clients.acknowledged(since, tenant)[-1:] for tenant in clients.tenants}
    with contextlib.suppress(httpx.HTTPError):
        return all(own and own[0].name in survivors.newest_writes(tenant) for tenant, own in last.items())
    return False
