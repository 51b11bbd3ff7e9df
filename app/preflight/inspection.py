"""Reads the configuration of each Redis server of the store, and explains why the store cannot be used."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from app.errors import StoreError, causes, system_reason
from app.settings import Settings
from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    Pipeline,
    RedisError,
    ResponseError,
    StoreConnectionError,
    parsing_reply_of,
)
from app.store.redis_url import Address, HostPort, format_host_port
from app.store.sentinel import query_primary
from app.store.topology import connect, connections_for, sentinels_at

# The beginning of the reply to any connection from another machine in protected mode. Redis then closes it.
_DENIED: Final = "DENIED"

Role = Literal["primary", "replica"]

_PARAMETERS: Final = ("maxmemory-policy", "appendonly", "appendfsync", "cluster-require-full-coverage")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The configuration of the server at `server`, as host:port. A field is None if the server does not return it.

    `replicas` is the number of replicas that are online. `min_replicas_to_write` is True if the server rejects writes
    while it has too few replicas. `allows_scan` is True if the user of the service may list the keys.
    """

    server: str
    role: Role
    maxmemory_policy: str | None
    appendonly: bool | None
    appendfsync: str | None
    replicas: int | None
    min_replicas_to_write: bool | None
    cluster_require_full_coverage: bool | None
    allows_scan: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelFacts:
    """The primary that the sentinel at `server` names, as host:port, or the reason why it names none.

    `known` is the number of sentinels that it knows, with itself.
    """

    server: str
    primary: str | None = None
    known: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachableServer:
    """A server whose configuration could not be read, and the reason."""

    server: str
    role: Role
    reason: str


async def inspect_store(settings: Settings) -> list[ServerFacts | UnreachableServer]:
    """Return the facts of each primary and of each replica. A failover can make any replica the primary.

    Replicas come from the primaries and from the sentinels. Each server has `REDIS_TIMEOUT` seconds to reply. Raise
    StoreError if no sentinel or cluster node names the servers.
    """
    limit = settings.redis_timeout
    async with contextlib.AsyncExitStack() as stack:
        topology = connect(settings.redis_address)
        stack.push_async_callback(topology.close)
        try:
            async with asyncio.timeout(limit):
                primaries, from_sentinels = await topology.servers()
        except DRIVER_ERRORS as error:
            raise StoreError("no sentinel or cluster node names the servers") from error
        inspected = await asyncio.gather(*(_inspect(each, "primary", limit) for each in primaries))
        addresses = dict.fromkeys([*from_sentinels, *(each for _, from_primary in inspected for each in from_primary)])
        replicas = [connections_for(settings.redis_address, each) for each in addresses]
        for each in replicas:
            stack.push_async_callback(each.close)
        inspected += await asyncio.gather(*(_inspect(each, "replica", limit) for each in replicas))
    return [facts for facts, _ in inspected]


async def inspect_sentinels(settings: Settings) -> list[SentinelFacts]:
    """Return the facts of each sentinel in `REDIS_URL`, or none if it lists no sentinels.

    Each sentinel has `REDIS_TIMEOUT` seconds to reply.
    """
    if settings.redis.kind != "sentinels":
        return []
    sentinels = sentinels_at(settings.redis_address)

    async def inspect(sentinel: ServerConnections) -> SentinelFacts:
        try:
            async with asyncio.timeout(settings.redis_timeout):
                answer = await query_primary(sentinel, settings.redis.service)
        except DRIVER_ERRORS as error:
            return SentinelFacts(server=sentinel.name, reason=_reason(error))
        finally:
            await sentinel.close()
        return SentinelFacts(server=sentinel.name, primary=format_host_port(answer.primary), known=answer.sentinels)

    return await asyncio.gather(*map(inspect, sentinels))


async def _inspect(
    connections: ServerConnections, role: Role, limit: float
) -> tuple[ServerFacts | UnreachableServer, Sequence[HostPort]]:
    """Return the facts of one server, and the addresses of its replicas."""
    try:
        async with asyncio.timeout(limit):
            with parsing_reply_of("Redis server"):
                return await connections.run(None, partial(_facts, connections.name, role))
    except DRIVER_ERRORS as error:
        return UnreachableServer(server=connections.name, role=role, reason=_reason(error)), []


async def _facts(server: str, role: Role, pipeline: Pipeline) -> tuple[ServerFacts, list[HostPort]]:
    """Read CONFIG and INFO. Managed services forbid CONFIG, but INFO has most of the same values."""
    (reply,) = await pipeline(("INFO",), errors=True)  # apart, because protected mode closes the connection after it
    if str(reply).startswith(_DENIED):
        raise reply
    lines = reply.decode(errors="replace").splitlines() if isinstance(reply, bytes) else []
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    scanned, *replies = await pipeline(
        ("SCAN", 0, "COUNT", 1), *(("CONFIG", "GET", parameter) for parameter in _PARAMETERS), errors=True
    )
    config = {each[0].decode(): each[1].decode() for each in replies if isinstance(each, list) and each}
    replicas = [
        dict(each.split("=", 1) for each in value.split(","))
        for name, value in info.items()
        if re.fullmatch(r"slave\d+", name)
    ]
    appendonly = config.get("appendonly", info.get("aof_enabled"))
    full_coverage = config.get("cluster-require-full-coverage")
    facts = ServerFacts(
        server=server,
        role=role,
        maxmemory_policy=config.get("maxmemory-policy", info.get("maxmemory_policy")),
        appendonly=None if appendonly is None else appendonly in {"yes", "1"},
        appendfsync=config.get("appendfsync"),
        replicas=sum(each["state"] == "online" for each in replicas) if "connected_slaves" in info else None,
        # INFO has this field only if min-replicas-to-write is on.
        min_replicas_to_write="min_slaves_good_slaves" in info if "connected_slaves" in info else None,
        cluster_require_full_coverage=None if full_coverage is None else full_coverage == "yes",
        allows_scan=not isinstance(scanned, Exception),
    )
    # A client that only takes a backup (redis-cli --rdb) is listed as a replica with port 0.
    return facts, [(each["ip"], int(each["port"])) for each in replicas if each["port"] != "0"]


async def tls_mismatch(settings: Settings) -> str | None:
    """Return the mistake if `REDIS_URL` asks for TLS and a host answers without it, or the other way round."""
    address, other = settings.redis, Address(tls=not settings.redis.tls, tls_verify=False)
    answers = await asyncio.gather(*(_answers(other, each, settings.redis_timeout) for each in address.hosts))
    if not any(answers):
        return None
    without, with_tls = ("redis://", "rediss://") if address.kind == "server" else ("?tls=false", "?tls=true")
    return f"it does not use TLS: use {without}" if address.tls else f"it uses TLS: use {with_tls}"


async def _answers(address: Address, host_port: HostPort, limit: float) -> bool:
    """Return True if a Redis server answers at `host_port`. No login is sent."""
    connections = connections_for(address, host_port)
    try:
        async with asyncio.timeout(limit):
            await connections.run(None, lambda pipeline: pipeline(("PING",)))
    except DRIVER_ERRORS as error:
        return isinstance(error, AuthenticationError | ResponseError)
    finally:
        await connections.close()
    return True


_CLUSTER_NODE: Final = "it is a node of a cluster: use redis+cluster://"
_SENTINEL: Final = "it is a sentinel: use redis+sentinel://"
_NO_CLUSTER_NODE: Final = "it is not a node of a cluster: use redis:// for one server, or redis+sentinel://"
# Mistakes by the beginning of Redis's reply.
_MISTAKES: Final = {
    "DB index is out of range": "it has no database with this number: use a lower one in REDIS_URL",
    "SELECT is not allowed in cluster mode": _CLUSTER_NODE,
    "This instance has cluster support disabled": _NO_CLUSTER_NODE,
    "unknown command 'CLUSTER'": _NO_CLUSTER_NODE,
    "unknown command 'SENTINEL'": "it is not a sentinel: use redis:// for one server, or redis+cluster://",
    "unknown command 'GET'": _SENTINEL,
    "unknown command 'SELECT'": _SENTINEL,
    "max number of clients reached": "it has too many connections: raise its maxclients, or close some of them",
    _DENIED: "it is in protected mode and accepts only local connections: give it a password",
}
# Known only if `tls_mismatch` gets a reply. It gets none if the server wants a certificate of the client, for example.
_PERHAPS_TLS: Final = "perhaps it uses TLS and REDIS_URL does not (rediss://), or the other way round"
_REASONS: Final[dict[type[BaseException], str]] = {
    TimeoutError: "it did not answer in time (REDIS_TIMEOUT)",
    RedisError: f"it closed the connection, or its reply was not from Redis; {_PERHAPS_TLS}",
}


def failure_reason(error: StoreError) -> str:
    """Return why the store cannot be used. The text calls the store "it" and contains no secret."""
    return _reason(error.__cause__) if error.__cause__ else str(error)


async def explain_failure(settings: Settings, error: StoreError) -> str:
    """Return why the store cannot be used, as `oms-config check` prints it."""
    return await tls_mismatch(settings) or failure_reason(error)


def _reply_reason(error: BaseException) -> str | None:
    """Return the mistake that the reply `error` shows, or else its text, or None if it is no reply."""
    for beginning, mistake in _MISTAKES.items():
        if isinstance(error, RedisError) and str(error).startswith(beginning):
            return mistake
    if isinstance(error, AskError):
        return _CLUSTER_NODE
    # `app.store.connections` hides the replies to AUTH that could quote the password.
    is_reply = isinstance(error, AuthenticationError | BusyLoadingError | ResponseError)
    return f"it replied: {error}" if is_reply else None


def _reason(error: BaseException) -> str:
    if isinstance(error, StoreConnectionError):
        return f"{error}; the last one tried: {_reason(error.__cause__)}" if error.__cause__ else str(error)
    for cause in causes(error):
        if reason := _reply_reason(cause):
            return reason
    if reason := system_reason(error):
        is_reset = any(isinstance(cause, ConnectionResetError) for cause in causes(error))
        return f"cannot connect to it: {reason}{f'; {_PERHAPS_TLS}' if is_reset else ''}"
    return next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "cannot connect to it")
