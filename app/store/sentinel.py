"""The topology of a primary with sentinels: asks the sentinels for the primary and follows failovers."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import Pipeline, PipelineWork, StoreConnectionError, T, parsing_reply_of
from app.store.poller import Poller
from app.store.redis_url import HostPort, Quorum

_log = logging.getLogger(__name__)

# In seconds: the interval of the polls, and the time limit of one. Both are short, because a demoted primary accepts
# writes for up to ten seconds until it learns of the failover, and those writes are lost.
_POLL_INTERVAL: Final = 0.25
_POLL_TIMEOUT: Final = 0.25
# In seconds since the question: how long an answer counts. The next poll renews it, with a margin for a busy worker.
_ANSWER_LIFETIME: Final = _POLL_INTERVAL + _POLL_TIMEOUT + 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """The primary that one sentinel names.

    Each failover raises the `epoch`. `sentinels` is the number of sentinels that this one knows, with itself. `asked`
    is the time of the question, by the loop's clock.
    """

    primary: HostPort
    epoch: int
    sentinels: int
    asked: float


async def query_primary(sentinel: ServerConnections, service: str) -> Answer:
    """Ask one sentinel for the primary of `service`.

    Raises StoreConnectionError if it does not know the service, or if its reply is not that of a sentinel.
    """
    asked = asyncio.get_running_loop().time()
    # The epoch comes first, so that it is never newer than the address.
    commands = ("SENTINEL", "MASTER", service), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    master, address = await sentinel.run(None, lambda pipeline: pipeline(*commands, errors=True))
    if address is None:
        raise StoreConnectionError(f"it knows no primary named {service}")
    for reply in (address, master):
        if isinstance(reply, Exception):
            raise reply
    with parsing_reply_of("sentinel"):
        fields = dict(zip(master[::2], master[1::2], strict=True))
        primary = address[0].decode(), int(address[1])
        return Answer(primary, int(fields[b"config-epoch"]), int(fields[b"num-other-sentinels"]) + 1, asked)


class SentinelTopology:
    """The `Topology` of a primary that sentinels name. It follows failovers.

    From the first use on, all sentinels are asked for the primary of `service` four times a second. The answer with the
    highest epoch counts. An answer with a lower epoch than an earlier one never changes the primary. While no sentinel
    answers, the last known primary is used.

    With the quorum `majority`, more than half of the sentinels must confirm the primary before a write: each named it
    in its last answer, and was asked at most 0.75 seconds ago. Without that, a write waits for the next poll, at most
    half a second, and then raises StoreConnectionError. Nothing was sent then.

    `connections_to` makes the connections to a server, which run the given work first.
    """

    def __init__(
        self,
        sentinels: Sequence[ServerConnections],
        service: str,
        connections_to: Callable[[HostPort, PipelineWork[None]], ServerConnections],
        quorum: Quorum = "majority",
    ) -> None:
        self._sentinels = sentinels
        self._majority = len(sentinels) // 2 + 1
        self._service = service
        self._connections_to = connections_to
        self._quorum = quorum
        self._answers: dict[ServerConnections, Answer] = {}
        self._last_error: Exception | None = None  # in the last poll, of the last sentinel that named no primary
        self._epoch = -1
        self._primary_host_port: HostPort | None = None
        self._primary: ServerConnections | None = None
        self._confirmed_until = 0.0  # by the loop's clock
        self._is_set_up_again = False
        self._poller = Poller(self._poll, _POLL_INTERVAL)

    async def read(self, key: str, limit: float) -> bytes | None:
        """See `Topology`."""
        async with asyncio.timeout(limit):
            return await (await self._current_primary()).read(key, limit)

    async def run(self, key: str, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        """See `Topology`."""
        primary = await self._current_primary()
        if not writes or self._quorum == "any":
            return await primary.run(key, work, fresh=fresh)
        primary = await self._confirmed_primary()
        return await primary.run(key, partial(self._run_confirmed, work), fresh=fresh)

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
        self._poller.close()
        for connections in (*self._sentinels, self._primary):
            if connections is not None:
                await connections.close()

    async def _current_primary(self) -> ServerConnections:
        self._poller.start()
        if self._primary is None:
            await self._poller.until(lambda: self._primary is not None)
        if self._primary is None:
            raise StoreConnectionError("no sentinel names a primary") from self._last_error
        return self._primary

    async def _run_confirmed(self, work: PipelineWork[T], pipeline: Pipeline) -> T:
        """Run `work` if a majority confirms the primary still after the wait for a connection."""
        await self._confirmed_primary()
        return await work(pipeline)

    async def _confirmed_primary(self) -> ServerConnections:
        """Return the primary once a majority confirms it. Raises StoreConnectionError if the next poll finds none."""
        await self._poller.until(self._is_confirmed)
        if self._primary is None or not self._is_confirmed():
            confirming = sum(each.primary == self._primary_host_port for each in self._fresh_answers())
            reason = f"{self._majority} of {len(self._sentinels)} sentinels must confirm the primary, {confirming} did"
            if self._is_set_up_again:
                reason += "; they know only earlier failovers: if they were set up again, restart the service"
            raise StoreConnectionError(reason) from self._last_error
        return self._primary

    def _is_confirmed(self) -> bool:
        return asyncio.get_running_loop().time() < self._confirmed_until

    async def _poll(self) -> bool:
        """Ask all sentinels. Returns False if no primary is known yet."""
        self._last_error = None
        async with asyncio.TaskGroup() as group:
            for sentinel in self._sentinels:
                group.create_task(self._query(sentinel))
        await self._use_newest_answer()
        return self._primary is not None

    async def _query(self, sentinel: ServerConnections) -> None:
        try:
            async with asyncio.timeout(_POLL_TIMEOUT):
                self._answers[sentinel] = await query_primary(sentinel, self._service)
        except DRIVER_ERRORS as error:
            self._last_error = error
        else:
            # The first primary is chosen among the answers of a majority, because one sentinel alone may be cut off.
            if self._primary is not None or len(self._answers) >= self._majority:
                await self._use_newest_answer()

    async def _use_newest_answer(self) -> None:
        answers = self._fresh_answers()
        votes = Counter((each.epoch, each.primary) for each in answers)
        old = None
        if votes:
            current = self._primary_host_port
            epoch, host_port = max(votes, key=lambda named: (named[0], votes[named], named[1] == current))
            self._note_lower_epoch(len(answers) >= self._majority and epoch < self._epoch)
            if epoch >= self._epoch:
                self._epoch = epoch
                old = self._switch_to(host_port)
        asked = sorted(each.asked for each in answers if each.primary == self._primary_host_port)
        is_majority = len(asked) >= self._majority
        self._confirmed_until = asked[-self._majority] + _ANSWER_LIFETIME if is_majority else 0.0
        self._poller.notify()
        if old is not None:
            # This aborts operations in progress: writes that the old primary still accepts are lost.
            await old.close()

    def _fresh_answers(self) -> list[Answer]:
        oldest = asyncio.get_running_loop().time() - _ANSWER_LIFETIME
        return [each for each in self._answers.values() if each.asked > oldest]

    def _note_lower_epoch(self, is_lower: bool) -> None:
        if is_lower and not self._is_set_up_again:
            _log.warning("sentinels know only earlier failovers")
        self._is_set_up_again = is_lower

    def _switch_to(self, host_port: HostPort) -> ServerConnections | None:
        """Use another primary, and return the connections to the old one, if any."""
        if host_port == self._primary_host_port:
            return None
        if self._primary_host_port is not None:
            _log.warning("another primary", extra={"host": host_port[0], "port": host_port[1]})
        old = self._primary
        self._primary, self._primary_host_port = self._connections_to(host_port, _refuse_replica), host_port
        return old

    async def _replicas(self) -> list[HostPort]:
        """Return the replicas that the sentinels list, or none if no sentinel answers."""
        command = ("SENTINEL", "REPLICAS", self._service)
        for sentinel in list(self._answers):
            with contextlib.suppress(*DRIVER_ERRORS):
                async with asyncio.timeout(_POLL_TIMEOUT):
                    (replies,) = await sentinel.run(None, lambda pipeline: pipeline(command))
                with parsing_reply_of("sentinel"):
                    replicas = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in replies]
                    return [(fields[b"ip"].decode(), int(fields[b"port"])) for fields in replicas]
        return []


async def _refuse_replica(pipeline: Pipeline) -> None:
    """Raise StoreConnectionError if the server is a replica. A server whose ACL forbids ROLE is not refused."""
    (reply,) = await pipeline(("ROLE",), errors=True)
    if isinstance(reply, list) and reply[0] == b"slave":
        raise StoreConnectionError("the server that the sentinels name is a replica")
