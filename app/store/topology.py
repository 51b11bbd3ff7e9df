"""The Redis servers behind the store: one server, a primary that sentinels name, or the nodes of a cluster."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol
from urllib.parse import quote

from app.store.cluster import ClusterTopology
from app.store.connections import ServerConnections
from app.store.pipeline import PipelineWork, T
from app.store.redis_url import Address, HostPort, Quorum
from app.store.sentinel import SentinelTopology


class Topology(Protocol):
    """The connections to the store's servers. Every method may raise the errors in `DRIVER_ERRORS`."""

    def read(self, key: str, limit: float) -> Awaitable[bytes | None]:
        """Return the value of `key`, or None if there is no such key. Ends within `limit` seconds.

        The value is read after this call. Several reads may share a round trip.
        """

    async def run(self, key: str, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        """Run `work` with a pipeline to the server that has `key`, and return its result.

        With `fresh`, `work` gets a new connection. The caller sets the time limit.

        `writes` means that the result acknowledges a write. If the server may have been replaced as the primary,
        nothing is sent then: see `SentinelTopology`.

        If the server redirects to another one, `work` is run again there: before a redirection it had no effect.
        Nothing is repeated for any other reason.
        """

    async def check_reads(self, keys: Sequence[str]) -> None:
        """Read `keys`. Return if one server returns all of them, or one node of a cluster returns one.

        The caller sets the time limit.
        """

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        """Return the servers that have keys, and the replicas that sentinels list (otherwise none)."""

    def subscribe(self, channel: str, limit: float) -> AbstractAsyncContextManager[AsyncIterator[bytes | None]]:
        """Subscribe to `channel` on separate connections, and yield the messages from all servers.

        None means that messages may have been missed. Raises if there is no subscription within `limit` seconds.
        Iteration raises once the subscription is lost.
        """

    async def close(self) -> None:
        """Close every connection, including those in use."""


def connect(address: Address, quorum: Quorum = "majority") -> Topology:
    """Return the topology at `address`. It connects when it is first used. `quorum` is for sentinels."""
    if address.path is not None:
        return ServerConnections.to(
            f"unix://{quote(address.path)}", username=address.username, password=address.password
        )
    connections_to = partial(connections_for, address)
    match address.kind:
        case "server":
            return connections_to(address.hosts[0])
        case "sentinels":
            return SentinelTopology(sentinels_at(address), address.service, connections_to, quorum)
        case "cluster":
            return ClusterTopology(address.hosts, connections_to)


def sentinels_at(address: Address) -> list[ServerConnections]:
    """Return the connections to each sentinel of `address`. None is opened yet."""
    login = replace(address, username=address.sentinel_username, password=address.sentinel_password, database=0)
    # A sentinel that is listed twice counts once.
    return [connections_for(login, each) for each in dict.fromkeys(address.hosts)]


def connections_for(
    address: Address, host_port: HostPort, on_connect: PipelineWork[None] | None = None
) -> ServerConnections:
    """Return the connections to one server, with the login, the database and the TLS of `address`.

    None is opened yet. `on_connect` runs first on each.
    """
    # The host is not part of the URL. Sentinels and nodes may name one that would change the meaning of a URL.
    host, port = host_port
    return ServerConnections.to(
        "rediss://" if address.tls else "redis://",
        host=host,
        port=port,
        db=address.database,
        tls_verify=address.tls_verify,
        on_connect=on_connect,
        username=address.username,
        password=address.password,
    )
