"""Asks each Redis server of the store how it is configured, and says why one cannot be used."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from app.errors import StoreError, causes, system_reason
from app.settings import Settings
from app.store.connections import DRIVER_ERRORS, REFUSED, ServerConnections
from app.store.pipeline import Pipeline, driver_errors
from app.store.redis_url import HostPort
from app.store.topology import connect, connections_for

Role = Literal["primary", "replica"]

_PARAMETERS: Final = ("maxmemory-policy", "appendonly", "appendfsync")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The configuration of the server at `server`, host:port. None is what the server does not answer.

    `replicas` counts those that are online.
    """

    server: str
    role: Role
    maxmemory_policy: str | None
    appendonly: bool | None
    appendfsync: str | None
    replicas: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachableServer:
    """A server that could not be asked, and why."""

    server: str
    role: Role
    obstacle: str


async def inspect_store(settings: Settings) -> list[ServerFacts | UnreachableServer]:
    """Return the facts of each server that has keys, and of each replica: it may become a primary.

    Replicas are those that the servers name, and those that only the sentinels know. Each server gets `REDIS_TIMEOUT`
    seconds. Raises StoreError if no sentinel or node names the servers.
    """
    tls_verify, limit = settings.redis_tls_verify, settings.redis_timeout
    async with contextlib.AsyncExitStack() as stack:
        topology = connect(settings.redis, tls_verify=tls_verify)
        stack.push_async_callback(topology.close)
        try:
            async with asyncio.timeout(limit):
                primaries, known = await topology.servers()
        except DRIVER_ERRORS as error:
            raise StoreError("the servers are not known") from error
        inspected = await asyncio.gather(*(_inspect(each, "primary", limit) for each in primaries))
        addresses = dict.fromkeys([*known, *(address for _, named in inspected for address in named)])
        replicas = [connections_for(settings.redis, each, tls_verify=tls_verify) for each in addresses]
        for each in replicas:
            stack.push_async_callback(each.close)
        inspected += await asyncio.gather(*(_inspect(each, "replica", limit) for each in replicas))
    return [facts for facts, _ in inspected]


async def _inspect(
    connections: ServerConnections, role: Role, limit: float
) -> tuple[ServerFacts | UnreachableServer, Sequence[HostPort]]:
    """Return the facts of one server, and the replicas that it names."""
    try:
        async with asyncio.timeout(limit):
            return await connections.run(None, partial(_facts, connections.name, role))
    except DRIVER_ERRORS as error:
        return UnreachableServer(server=connections.name, role=role, obstacle=_obstacle(error)), []


async def _facts(server: str, role: Role, pipeline: Pipeline) -> tuple[ServerFacts, list[HostPort]]:
    """Managed services forbid CONFIG. INFO has most of the same."""
    lines = (await _ask(pipeline, "INFO") or b"").decode(errors="replace").splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    config = {}
    for parameter in _PARAMETERS:
        if reply := await _ask(pipeline, "CONFIG", "GET", parameter):
            config[parameter] = reply[1].decode()
    replicas = [
        dict(each.split("=", 1) for each in value.split(","))
        for name, value in info.items()
        if re.fullmatch(r"slave\d+", name)
    ]
    appendonly = config.get("appendonly", info.get("aof_enabled"))
    facts = ServerFacts(
        server=server,
        role=role,
        maxmemory_policy=config.get("maxmemory-policy", info.get("maxmemory_policy")),
        appendonly=None if appendonly is None else appendonly in {"yes", "1"},
        appendfsync=config.get("appendfsync"),
        replicas=sum(each["state"] == "online" for each in replicas) if "connected_slaves" in info else None,
    )
    # A replica that only takes a backup (redis-cli --rdb) has no port.
    return facts, [(each["ip"], int(each["port"])) for each in replicas if each["port"] != "0"]


async def _ask(pipeline: Pipeline, *command: str) -> Any:
    """Return the reply, or None if the server refuses the command."""
    try:
        (reply,) = await pipeline(command)
    except REFUSED:
        return None
    return reply


# These texts of Redis quote no argument. Others may quote the command, and with AUTH that is the password.
_QUOTABLE: Final = (
    driver_errors.AuthenticationError,
    driver_errors.BusyLoadingError,
    driver_errors.ExecAbortError,
    driver_errors.NoPermissionError,
    driver_errors.OutOfMemoryError,
    driver_errors.ReadOnlyError,
)
_OBSTACLES: Final[dict[type[BaseException], str]] = {
    TimeoutError: "it did not answer in time (REDIS_TIMEOUT)",
    driver_errors.ResponseError: "it refused a command that the service needs",
    driver_errors.RedisError: "it did not answer as Redis does, or closed the connection",
}


def obstacle(error: StoreError) -> str:
    """Return why the store cannot be used, without a secret; "it" is the store."""
    return _obstacle(error.__cause__) if error.__cause__ else str(error)


def _obstacle(error: BaseException) -> str:
    if type(error) is ConnectionError or isinstance(error, LookupError):  # raised by app.store, in its own words
        return f"{error}; the one asked last: {_obstacle(error.__cause__)}" if error.__cause__ else str(error)
    for cause in causes(error):
        if isinstance(cause, _QUOTABLE):
            return f"it answers: {cause}"
    if reason := system_reason(error):
        return f"cannot connect to it: {reason}"
    return next((text for kind, text in _OBSTACLES.items() if isinstance(error, kind)), "cannot connect to it")
