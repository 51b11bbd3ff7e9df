"""The topology of a primary with sentinels: asks the sentinels for the primary and follows failovers."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import Pipeline, PipelineWork, StoreConnectionError, T
from app.store.redis_url import HostPort

_log = logging.getLogger(__name__)

# In seconds: the interval of the queries, and the time limit of one. Both are short, because a demoted primary accepts
# writes for up to ten seconds until it learns of the failover, and those writes are lost.
_POLL_INTERVAL: Final = 0.25
_SENTINEL_TIMEOUT: Final = 0.25


class SentinelTopology:
    """The `Topology` of a primary that sentinels name. It follows failovers.

    From the first use on, the sentinels are queried for the primary of `service` four times a second. The sentinel that
    last answered is queried first. While none answers, the last known primary is used. `connections_to` makes the
    connections to a server.
    """

    def __init__(
        self,
        sentinels: Sequence[ServerConnections],
        service: str,
        connections_to: Callable[[HostPort], ServerConnections],
    ) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._connections_to = connections_to
        self._primary_host_port: HostPort | None = None
        self._primary: ServerConnections | None = None
        self._first_poll_done = asyncio.Event()
        self._last_error: Exception | None = None  # of the last sentinel that named no primary
        self._polling: asyncio.Task[None] | None = None

    async def read(self, key: str, limit: float) -> bytes | None:
        """See `Topology`."""
        async with asyncio.timeout(limit):
            return await (await self._current_primary()).read(key, limit)

    async def run(self, key: str, work: PipelineWork[T], *, fresh: bool = False) -> T:
        """See `Topology`."""
        return await (await self._current_primary()).run(key, work, fresh=fresh)

    async def check_reads(self, keys: Sequence[str]) -> None:
        """See `Topology`."""
        await (await self._current_primary()).check_reads(keys)

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        """See `Topology`. Includes replicas that are down: the sentinels may promote them once they are back."""
        return [await self._current_primary()], await self._replicas()

    @contextlib.asynccontextmanager
    async def subscribe(self, channel: str, limit: float) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """See `Topology`."""
        async with asyncio.timeout(limit):
            primary = await self._current_primary()
        async with primary.subscribe(channel, limit) as messages:
            yield messages

    async def close(self) -> None:
        """See `Topology`."""
        if self._polling is not None:
            self._polling.cancel()
        for connections in (*self._sentinels, self._primary):
            if connections is not None:
                await connections.close()

    async def _current_primary(self) -> ServerConnections:
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        if self._primary is None:
            # Only the task queries sentinels. A caller that times out would start again with the same dead sentinel.
            await self._first_poll_done.wait()
        if self._primary is None:
            raise StoreConnectionError("no sentinel names a primary") from self._last_error
        return self._primary

    async def _poll(self) -> None:
        while True:
            await self._query_sentinels()
            self._first_poll_done.set()
            await asyncio.sleep(_POLL_INTERVAL)

    async def _query_sentinels(self) -> None:
        """Query the sentinels in turn until one names the primary."""
        for sentinel in list(self._sentinels):
            try:
                async with asyncio.timeout(_SENTINEL_TIMEOUT):
                    host_port = await sentinel.run(None, self._query_primary)
            except DRIVER_ERRORS as error:
                self._last_error = error
                continue
            if host_port is None:
                self._last_error = StoreConnectionError(f"it knows no primary named {self._service}")
            else:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                await self._switch_to(host_port)
                return

    async def _replicas(self) -> list[HostPort]:
        """Return the replicas that the sentinel with the last answer lists, or none if it now fails."""
        command = ("SENTINEL", "REPLICAS", self._service)
        try:
            async with asyncio.timeout(_SENTINEL_TIMEOUT):
                (replies,) = await self._sentinels[0].run(None, lambda pipeline: pipeline(command))
        except DRIVER_ERRORS:
            return []
        replicas = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in replies]
        return [(fields[b"ip"].decode(), int(fields[b"port"])) for fields in replicas]

    async def _query_primary(self, pipeline: Pipeline) -> HostPort | None:
        """Return the primary that a sentinel names, or None if it does not know the service."""
        (reply,) = await pipeline(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        return (reply[0].decode(), int(reply[1])) if reply else None

    async def _switch_to(self, host_port: HostPort) -> None:
        if host_port == self._primary_host_port:
            return
        if self._primary_host_port is not None:
            _log.warning("another primary", extra={"host": host_port[0], "port": host_port[1]})
        old, self._primary, self._primary_host_port = self._primary, self._connections_to(host_port), host_port
        if old is not None:
            # This aborts operations in progress: writes that the old primary still accepts are lost.
            await old.close()
