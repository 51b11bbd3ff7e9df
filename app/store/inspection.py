"""What a Redis server says of itself, and what stood in the way where it cannot be used."""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from app.errors import StoreError
from app.store.connections import REFUSED
from app.store.exchange import Command, Exchange

_PARAMETERS: Final = ("maxmemory-policy", "appendonly", "appendfsync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A server's own account; None is what it does not tell.

    `version` is that of Redis, or the one that another product says it is compatible with: `product` is that one's own
    name and version. `replicas` counts those that are online.
    """

    version: str | None
    product: str | None
    maxmemory_policy: str | None
    appendonly: bool | None
    appendfsync: str | None
    replicas: int | None


async def facts_from(exchange: Exchange) -> Facts:
    """The account of the server that answers `exchange`. Raises what the driver does when the connection fails.

    Where CONFIG is forbidden, as managed services have it, INFO tells the most; what both refuse is left open.
    """
    info = await _ask(exchange, ("INFO",))
    told = dict(line.split(":", 1) for line in (info or b"").decode(errors="replace").splitlines() if ":" in line)
    config = {}
    for parameter in _PARAMETERS:
        if reply := await _ask(exchange, ("CONFIG", "GET", parameter)):
            config[parameter] = reply[1].decode()
    appendonly = config.get("appendonly", told.get("aof_enabled"))
    product = told.get("server_name")
    return Facts(
        version=told.get("redis_version"),
        product=f"{product} {told.get(f'{product}_version', '')}".strip() if product else None,
        maxmemory_policy=config.get("maxmemory-policy", told.get("maxmemory_policy")),
        appendonly=None if appendonly is None else appendonly in {"yes", "1"},
        appendfsync=config.get("appendfsync"),
        replicas=_replicas(told) if "connected_slaves" in told else None,
    )


async def _ask(exchange: Exchange, command: Command) -> Any:
    """The reply, or None where the server refuses it."""
    try:
        (reply,) = await exchange(command)
    except REFUSED:
        return None
    return reply


def _replicas(told: dict[str, str]) -> int:
    return sum("state=online" in value for name, value in told.items() if re.fullmatch(r"slave\d+", name))


# The nearest class in the error's line of descent counts. No server's own words are repeated: some quote the command,
# and AUTH is one.
_OBSTACLES: Final[dict[type[BaseException], str]] = {
    TimeoutError: "it did not answer in time (REDIS_TIMEOUT)",
    AuthenticationError: "it does not take this user and password",
    BusyLoadingError: "it is loading its data still",
    OutOfMemoryError: "its memory is full (maxmemory)",
    ReadOnlyError: "it is a replica, which takes no writes",
    ResponseError: "it refused a command that the service needs",
    RedisError: "it did not answer as Redis does, or closed the connection",
}


def obstacle(error: StoreError) -> str:
    """What stood in the store's way, in plain words that hold no secret; "it" is the store."""
    causes = list(_causes(error))
    if not causes:
        return str(error)  # of the service's own making
    for cause in causes:
        if isinstance(cause, NoPermissionError | ExecAbortError) and "permission" in str(cause):
            return _forbidden(str(cause))
        # redis-py wraps what the system said; the system's words say more.
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"there is no way to it: {_system_words(cause)}"
    kinds = [kind for cause in causes for kind in type(cause).__mro__]
    return next((_OBSTACLES[kind] for kind in kinds if kind in _OBSTACLES), "there is no way to it")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
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
