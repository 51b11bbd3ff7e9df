"""What Redis servers say of themselves, and what stood in the way where one cannot be used."""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.errors import StoreError
from app.store.address import HostPort
from app.store.connections import DRIVER_ERRORS, REFUSED, ServerConnections
from app.store.pipeline import Command, Pipeline, driver_errors
from app.store.topology import Topology

Role = Literal["primary", "replica"]

_PARAMETERS: Final = ("maxmemory-policy", "appendonly", "appendfsync")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """A server's own account; None is what it does not tell.

    `server` is its host:port. `version` is that of Redis, or the one that another product says it is compatible with:
    `product` is that one's own name and version. `replicas` counts those that are online. `forbidden` are the commands
    that the store's user may not run there (ACL).
    """

    server: str
    role: Role
    version: str | None
    product: str | None
    maxmemory_policy: str | None
    appendonly: bool | None
    appendfsync: str | None
    replicas: int | None
    forbidden: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachableServer:
    """A server that could not be asked; `obstacle` says why, in plain words."""

    server: str
    role: Role
    obstacle: str


async def inspect(
    topology: Topology, at: Callable[[HostPort], ServerConnections], limit: float
) -> list[ServerFacts | UnreachableServer]:
    """The accounts of the servers that have keys, and of their replicas: each may have the keys next.

    The replicas are those that the servers name themselves, and those that sentinels know beside; `at` makes
    connections to them. Nobody may take longer than `limit` seconds. Raises StoreError where nobody names the servers.
    """
    try:
        async with asyncio.timeout(limit):
            primaries, known = await topology.servers()
    except DRIVER_ERRORS as error:
        raise StoreError("nobody names the servers") from error
    seen = await asyncio.gather(*(_look_at(each, "primary", limit) for each in primaries))
    places = dict.fromkeys([*known, *(place for _, named in seen for place in named)])
    replicas = await asyncio.gather(*(_look_at_replica(at(place), limit) for place in places))
    return [*(each for each, _ in seen), *replicas]


async def _look_at_replica(connections: ServerConnections, limit: float) -> ServerFacts | UnreachableServer:
    try:
        seen, _ = await _look_at(connections, "replica", limit)
    finally:
        await connections.close()
    return seen


async def _look_at(
    connections: ServerConnections, role: Role, limit: float
) -> tuple[ServerFacts | UnreachableServer, list[HostPort]]:
    """The account of one server, and the replicas that it names."""

    async def look(pipeline: Pipeline) -> tuple[ServerFacts, list[HostPort]]:
        return await _facts_from(pipeline, connections.name, role)

    try:
        async with asyncio.timeout(limit):
            return await connections.run(None, look)
    except DRIVER_ERRORS as error:
        return UnreachableServer(server=connections.name, role=role, obstacle=_obstacle([error, *_causes(error)])), []


async def _facts_from(pipeline: Pipeline, server: str, role: Role) -> tuple[ServerFacts, list[HostPort]]:
    """Where CONFIG is forbidden, as managed services have it, INFO tells the most; what both refuse is left open."""
    forbidden: list[str] = []
    info = await _ask(pipeline, ("INFO",), "INFO", forbidden)
    told = dict(line.split(":", 1) for line in (info or b"").decode(errors="replace").splitlines() if ":" in line)
    config = {}
    for parameter in _PARAMETERS:
        if reply := await _ask(pipeline, ("CONFIG", "GET", parameter), "CONFIG GET", forbidden):
            config[parameter] = reply[1].decode()
    replicas = [
        dict(each.split("=", 1) for each in value.split(","))
        for name, value in told.items()
        if re.fullmatch(r"slave\d+", name)
    ]
    appendonly = config.get("appendonly", told.get("aof_enabled"))
    product = told.get("server_name")
    facts = ServerFacts(
        server=server,
        role=role,
        version=told.get("redis_version"),
        product=f"{product} {told.get(f'{product}_version', '')}".strip() if product else None,
        maxmemory_policy=config.get("maxmemory-policy", told.get("maxmemory_policy")),
        appendonly=None if appendonly is None else appendonly in {"yes", "1"},
        appendfsync=config.get("appendfsync"),
        replicas=sum(each["state"] == "online" for each in replicas) if "connected_slaves" in told else None,
        forbidden=tuple(dict.fromkeys(forbidden)),
    )
    # What only takes a backup (redis-cli --rdb) is listed as well, and listens nowhere.
    return facts, [(each["ip"], int(each["port"])) for each in replicas if each["port"] != "0"]


async def _ask(pipeline: Pipeline, command: Command, name: str, forbidden: list[str]) -> Any:
    """The reply, or None where the server refuses it; where it is the user who may not, that is noted."""
    try:
        (reply,) = await pipeline(command)
    except REFUSED as error:
        if isinstance(error, driver_errors.NoPermissionError):
            forbidden.append(name)
        return None
    return reply


# The nearest class in the error's line of descent counts. No server's own words are repeated: some quote the command,
# and AUTH is one.
_OBSTACLES: Final[dict[type[BaseException], str]] = {
    TimeoutError: "it did not answer in time (REDIS_TIMEOUT)",
    driver_errors.AuthenticationError: "it does not take this user and password",
    driver_errors.BusyLoadingError: "it is loading its data still",
    driver_errors.OutOfMemoryError: "its memory is full (maxmemory)",
    driver_errors.ReadOnlyError: "it is a replica, which takes no writes",
    driver_errors.ResponseError: "it refused a command that the service needs",
    driver_errors.RedisError: "it did not answer as Redis does, or closed the connection",
}


def obstacle(error: StoreError) -> str:
    """What stood in the store's way, in plain words that hold no secret; "it" is the store."""
    return _obstacle(list(_causes(error))) or str(error)  # without a cause, it is of the service's own making


def _obstacle(causes: Sequence[BaseException]) -> str:
    if not causes:
        return ""
    # Bare, it is of the service's own making as well: no driver and no system raises just this.
    if type(causes[0]) is ConnectionError:
        asked_last = _obstacle(causes[1:])
        return f"{causes[0]}; the one asked last: {asked_last}" if asked_last else str(causes[0])
    if isinstance(causes[0], LookupError):
        return str(causes[0])
    for cause in causes:
        if isinstance(cause, driver_errors.NoPermissionError | driver_errors.ExecAbortError) and "permission" in str(
            cause
        ):
            return _forbidden(str(cause))
        # redis-py wraps what the system said; the system's words say more.
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"there is no way to it: {_system_words(cause)}"
    kinds = [kind for cause in causes for kind in type(cause).__mro__]
    return next((_OBSTACLES[kind] for kind in kinds if kind in _OBSTACLES), "there is no way to it")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield cause
        yield from _causes(cause)


def _forbidden(message: str) -> str:
    command = re.search(r"'([a-z|]+)' command", message)
    what = f"run {command[1].upper()}" if command else "use the keys external_oms:* or the channel external_oms:changes"
    return f"its user may not {what} (ACL)"


def _system_words(error: OSError) -> str:
    # asyncio puts the address into the text of a system's error; TLS and the resolver have numbers of their own.
    own = isinstance(error, ssl.SSLError | socket.gaierror)
    return str(error.strerror) if own else os.strerror(error.errno or 0)
