"""Lists the tenants of the store and their newest changes, for operators. The service itself never lists them."""

import asyncio
import re
from array import array
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from app.errors import StoreError
from app.model import TENANT_PATTERN, Change
from app.store.connections import ERROR_REPLY, ServerConnections, within
from app.store.pipeline import Command, parsing_reply_of
from app.store.stored_form import decode
from app.store.topology import Topology

# How many keys Redis inspects for one SCAN. It serves other clients in between.
_BATCH: Final = 500
_FAILURE: Final = "the tenants could not be listed"

# The hash tag is the tenant's name. The keys of probe writes have a colon in it.
_SETTING_KEY: Final = re.compile(rf"[^{{]*\{{({TENANT_PATTERN})\}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TenantPage:
    """Some of the tenants, each with its newest change.

    `damaged` has the key and the fault of each value that cannot be decoded. `progress` is the estimated part of the
    listing that is complete, from 0 to 1, or None if an ACL forbids DBSIZE.
    """

    changes: Mapping[str, Change]
    damaged: Sequence[str]
    progress: float | None


async def list_tenants(topology: Topology, pattern: str, limit: float) -> AsyncGenerator[TenantPage]:
    """Yield the tenants whose setting's key matches `pattern`, in the order of SCAN.

    Each tenant that is in the store all the time is yielded once, with a value that was read after this call. In a
    cluster, its slot may move once meanwhile. Each round trip ends within `limit` seconds.

    Raises StoreError if a server fails. The list is then not complete.
    """
    seen = _SeenNames()
    # In a cluster, everything is scanned twice: the first time, a key can move from a node that was not scanned yet to
    # one that was.
    for earlier_passes in (0, 1):
        async with within(limit, _FAILURE):
            servers, _ = await topology.servers()
            size = await _size(servers)
        passes = 1 if len(servers) == 1 else 2
        if earlier_passes == passes:
            return
        scanned = 0
        for server in servers:
            async for keys in _scan(server, pattern, limit):
                names = {match[1]: key for key in keys if (match := _SETTING_KEY.fullmatch(key)) and seen.add(match[1])}
                changes, damaged = await _newest_changes(topology, names, limit)
                scanned += _BATCH
                progress = None if size is None else (earlier_passes + min(1, scanned / size)) / passes
                yield TenantPage(changes, damaged, progress)


async def _size(servers: Sequence[ServerConnections]) -> int | None:
    """Return the number of keys on all servers, at least 1, or None if a server rejects the command."""
    command: Command = ("DBSIZE",)
    try:
        replies: list[list[int]] = [await server.run(None, lambda pipeline: pipeline(command)) for server in servers]
        return max(1, sum(reply for (reply,) in replies))
    except ERROR_REPLY:
        return None


async def _scan(server: ServerConnections, pattern: str, limit: float) -> AsyncGenerator[list[str]]:
    """Yield the keys of one server that match `pattern`. A key may be yielded more than once."""
    cursor = b"0"
    while True:
        command: Command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _BATCH)
        async with within(limit, _FAILURE):
            (reply,) = await server.run(None, lambda pipeline, command=command: pipeline(command))  # type: ignore[misc]
            with parsing_reply_of("Redis server"):
                cursor, keys = reply
                names = [key.decode(errors="replace") for key in keys]
        yield names
        if cursor == b"0":
            return


async def _newest_changes(
    topology: Topology, names: Mapping[str, str], limit: float
) -> tuple[dict[str, Change], list[str]]:
    """Return the newest changes of tenants, whose keys are given, and the faults of damaged values.

    The reads share a round trip. A tenant that was removed after the scan is left out.
    """
    values = await asyncio.gather(*(topology.read(key, limit) for key in names.values()), return_exceptions=True)
    changes, damaged = {}, []
    for (name, key), value in zip(names.items(), values, strict=True):
        if isinstance(value, ERROR_REPLY) and str(value).startswith("WRONGTYPE"):
            damaged.append(f"{key}: expected a string")
        elif isinstance(value, BaseException):
            raise StoreError("the settings could not be read") from value
        elif value is not None:
            try:
                changes[name] = decode(key, value)
            except StoreError as error:
                damaged.append(str(error))
    return changes, damaged


class _SeenNames:
    """A set of names in about 9 bytes for each name, instead of about 100, and 6 MB.

    It keeps 80 bits of a hash, so that with ten million names, the probability that it takes a new name for one that it
    has is about 1 in 20 billion.
    """

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(1 << 16)]

    def add(self, name: str) -> bool:
        """Add a name. Return False if it was there."""
        digest = blake2b(name.encode(), digest_size=10).digest()
        bucket, rest = self._buckets[int.from_bytes(digest[:2])], int.from_bytes(digest[2:])
        if rest in bucket:
            return False
        bucket.append(rest)
        return True
