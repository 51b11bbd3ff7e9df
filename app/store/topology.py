"""What the store consists of: one server, a primary that sentinels name, or the nodes of a cluster."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol
from urllib.parse import quote

from app.store.address import Address, HostPort, format_host_port
from app.store.cluster import ClusterTopology
from app.store.connections import ServerConnections
from app.store.pipeline import PipelineWork, T
from app.store.sentinel import SentinelTopology


class Topology(Protocol):
    """The servers that are the store, however many."""

    def read(self, key: str, limit: float) -> Awaitable[bytes | None]:
        """The value of `key`, as it stands after this was called; None where there is none.

        Reads may share a round trip. Raises what the driver raises, within `limit` seconds.
        """

    async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False) -> T:
        """What `work` returns, done on a connection to the server that has `key`, a `fresh` one if that is asked for.

        Where `key` is None, to any server.

        Where a server says that the key is another's now, the work is done once more there: up to then it has had no
        effect. Raises what the driver raises; nothing else is ever done twice.
        """

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        """The servers that have keys, and the replicas of which others than these know.

        Raises what the driver raises where nobody names them.
        """

    def subscribe(self, channel: str, limit: float) -> AbstractAsyncContextManager[AsyncIterator[bytes | None]]:
        """What is published to `channel` on any of the servers, on connections of its own.

        None says that something may have been lost. Raises what the driver raises where there is no subscription within
        `limit` seconds, and once there is none any more.
        """

    async def close(self) -> None:
        """Closes every connection, whoever uses it."""


def connect(address: Address, *, tls_verify: bool = True) -> Topology:
    """The store at `address`; no connection is opened yet. TLS is verified, unless `tls_verify` says otherwise."""
    if address.path is not None:
        return ServerConnections.to(
            f"unix://{quote(address.path)}", username=address.username, password=address.password
        )
    at = partial(connections_for, address, tls_verify=tls_verify)
    match address.kind:
        case "server":
            return at(address.places[0])
        case "sentinels":
            bare = Address(tls=address.tls)
            sentinels = [connections_for(bare, place, tls_verify=tls_verify) for place in address.places]
            return SentinelTopology(sentinels, address.service, at)
        case "cluster":
            return ClusterTopology(address.places, at)


def connections_for(address: Address, place: HostPort, *, tls_verify: bool) -> ServerConnections:
    """Connections to one server of the store at `address`, with its user and its TLS; none is opened yet."""
    scheme = "rediss" if address.tls else "redis"
    return ServerConnections.to(
        f"{scheme}://{format_host_port(place)}/{address.database}",
        tls_verify=tls_verify,
        username=address.username,
        password=address.password,
    )
