"""The primary that sentinels name."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from app.store.address import HostPort
from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import Pipeline, PipelineWork, T

_log = logging.getLogger(__name__)

# In seconds: how often the sentinels are asked, and how long one of them may take. A primary that was demoted goes on
# taking writes, which are lost, until it hears of it, up to ten seconds later: so it is left as soon as possible.
_INTERVAL: Final = 0.25
_PATIENCE: Final = 0.25


class SentinelTopology:
    """The `Topology` of a primary, followed through fail-overs.

    `sentinels` are asked for the primary of `service` four times a second from the first use on, the one that answered
    last first; while none answers, the last known primary stands. `at` makes connections to a server.
    """

    def __init__(
        self, sentinels: Sequence[ServerConnections], service: str, at: Callable[[HostPort], ServerConnections]
    ) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._at = at
        self._place: HostPort | None = None
        self._primary: ServerConnections | None = None
        self._asked = asyncio.Event()
        self._trouble: Exception | None = None  # of the sentinel that was asked last in vain
        self._following: asyncio.Task[None] | None = None

    async def read(self, key: str, limit: float) -> bytes | None:
        """See `Topology`."""
        async with asyncio.timeout(limit):
            return await (await self._current()).read(key, limit)

    async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False) -> T:
        """See `Topology`."""
        return await (await self._current()).run(key, work, fresh=fresh)

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        """See `Topology`. The sentinels know replicas that are away, and may promote them once they are back."""
        return [await self._current()], await self._replicas()

    @contextlib.asynccontextmanager
    async def subscribe(self, channel: str, limit: float) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """See `Topology`."""
        async with asyncio.timeout(limit):
            primary = await self._current()
        async with primary.subscribe(channel, limit) as messages:
            yield messages

    async def close(self) -> None:
        """See `Topology`."""
        if self._following is not None:
            self._following.cancel()
        for connections in (*self._sentinels, self._primary):
            if connections is not None:
                await connections.close()

    async def _current(self) -> ServerConnections:
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        if self._primary is None:
            # Asked by that task: whoever runs out of time here would begin again with the same sentinel.
            await self._asked.wait()
        if self._primary is None:
            raise ConnectionError("no sentinel names a primary") from self._trouble
        return self._primary

    async def _follow(self) -> None:
        while True:
            await self._ask()
            self._asked.set()
            await asyncio.sleep(_INTERVAL)

    async def _ask(self) -> None:
        """Asks the sentinels, one after the other, until one names the primary."""
        for sentinel in list(self._sentinels):
            try:
                async with asyncio.timeout(_PATIENCE):
                    place = await sentinel.run(None, self._named)
            except DRIVER_ERRORS as error:
                self._trouble = error
                continue
            if place is None:
                self._trouble = LookupError(f"it knows no primary of the name {self._service}")
            else:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                await self._move_to(place)
                return

    async def _replicas(self) -> list[HostPort]:
        """Those that the sentinel which named the primary knows; none where it does not tell them."""
        command = ("SENTINEL", "REPLICAS", self._service)
        try:
            async with asyncio.timeout(_PATIENCE):
                (replicas,) = await self._sentinels[0].run(None, lambda pipeline: pipeline(command))
        except DRIVER_ERRORS:
            return []
        told = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in replicas]
        return [(fields[b"ip"].decode(), int(fields[b"port"])) for fields in told]

    async def _named(self, pipeline: Pipeline) -> HostPort | None:
        """The primary that a sentinel names; None where it knows none."""
        (named,) = await pipeline(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        return (named[0].decode(), int(named[1])) if named else None

    async def _move_to(self, place: HostPort) -> None:
        if place == self._place:
            return
        if self._place is not None:
            _log.warning("another primary", extra={"host": place[0], "port": place[1]})
        left, self._primary, self._place = self._primary, self._at(place), place
        if left is not None:
            # With all that is under way on them: what the old primary still takes is lost.
            await left.close()
