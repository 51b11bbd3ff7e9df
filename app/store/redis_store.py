"""The store on Redis: keys and transactions.

A tenant has two keys, `external_oms:{<tenant>}` and `external_oms:{<tenant>}:history`; the braces are their hash tag on
a Redis Cluster. The first is the newest change, in its stored form. The second is a hash of the changes before it, each
under its version, as they stood in the first. With each change the tenant's name is published to the channel
`external_oms:changes`.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import Author, Change, Expected, Setting
from app.store.connections import DRIVER_ERRORS, REFUSED
from app.store.pipeline import Command, Pipeline
from app.store.stored_form import StoredChange, setting_of
from app.store.topology import Topology

_CHANNEL = "external_oms:changes"

# What one change takes away of a history that is longer than it is to be.
_MAX_TRIMMED = 100


class RedisStore:
    """The `Store` on Redis.

    `timeout` is in seconds and bounds each operation, connecting included, but for the look-up of a change whose answer
    was lost: that has half of it again. `history_length` changes are kept. A change is acknowledged once `min_replicas`
    replicas have it, within two fifths of `timeout`; where they do not, its outcome is unknown.
    """

    def __init__(self, topology: Topology, timeout: float, history_length: int, min_replicas: int = 0) -> None:
        self._topology = topology
        self._timeout = timeout
        self._history_length = history_length
        self._min_replicas = min_replicas

    async def current(self, tenant: str) -> Setting:
        """See `Store`."""
        key = _setting_key(tenant)
        try:
            value = await self._topology.read(key, self._timeout)
        except DRIVER_ERRORS as error:
            raise StoreError("the setting could not be read") from error
        return setting_of(key, value)

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """See `Store`."""
        attempt = _Attempt(tenant, enabled, author, expected)
        try:
            async with asyncio.timeout(self._timeout):
                stands, is_conflict = await self._topology.run(_setting_key(tenant), partial(self._decide, attempt))
        except REFUSED as error:
            raise StoreError("the change was rejected") from error
        except DRIVER_ERRORS as error:
            if attempt.sent is None:
                raise StoreError("the change could not be made") from error
            return await self._look_up(tenant, attempt.sent, error)
        if is_conflict:
            raise ConcurrentUpdate(stands.version)
        return stands

    async def _decide(self, attempt: "_Attempt", pipeline: Pipeline) -> tuple[Setting, bool]:
        """The setting that stands in the end, and whether that is a conflict."""
        key, history, attempt.sent = _setting_key(attempt.tenant), _history_key(attempt.tenant), None
        # HLEN is refused for a key of another type; EXEC would notice after it has written the setting.
        _, value, kept, time = await pipeline(("WATCH", key, history), ("GET", key), ("HLEN", history), ("TIME",))
        stands = setting_of(key, value)
        is_conflict = attempt.expected is not None and stands.version not in attempt.expected
        if not is_conflict and stands.enabled != attempt.enabled:
            attempt.sent = StoredChange.make(Setting(attempt.enabled, stands.version + 1), time, attempt.author)
            writes = self._writes(attempt.tenant, value, kept, attempt.sent)
        elif not is_conflict and self._min_replicas and value is not None:
            writes = [("SET", key, value)]  # again, as it stands: for the replicas to confirm
        else:
            await pipeline(("UNWATCH",))
            return stands, is_conflict
        *_, executed = await pipeline(("MULTI",), *writes, ("EXEC",))
        if executed is None:
            attempt.sent = None
            return setting_of(key, *await pipeline(("GET", key))), True
        await self._confirm(pipeline)
        return (attempt.sent.change.setting if attempt.sent else stands), False

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """See `Store`."""
        key, history = _setting_key(tenant), _history_key(tenant)

        async def read(pipeline: Pipeline) -> tuple[bytes | None, dict[int, bytes | None]]:
            # Of both at once, or a cluster that is moving one of them would answer for the other alone.
            _, value = await pipeline(("EXISTS", key, history), ("GET", key))
            newest = setting_of(key, value).version
            top = newest if before is None else min(newest, before - 1)
            versions = range(top, max(0, newest - self._history_length), -1)[:limit]
            older = [version for version in versions if version != newest]
            (values,) = await pipeline(("HMGET", history, *older)) if older else ([],)
            return value if newest in versions else None, dict(zip(older, values, strict=True))

        try:
            async with asyncio.timeout(self._timeout):
                value, values = await self._topology.run(key, read)
        except DRIVER_ERRORS as error:
            raise StoreError("the history could not be read") from error
        changes = [] if value is None else [StoredChange.decode(key, value).change]
        # None: a change was made meanwhile, and the oldest of these went.
        older = [(version, each) for version, each in values.items() if each is not None]
        return changes + [StoredChange.decode(history, each, version).change for version, each in older]

    async def ping(self) -> None:
        """See `Store`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._topology.run(None, lambda pipeline: pipeline(("PING",)))
        except DRIVER_ERRORS as error:
            raise StoreError("the store does not answer") from error

    @contextlib.asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[str | None]]:
        """See `Store`."""
        try:
            async with self._topology.subscribe(_CHANNEL, self._timeout) as messages:
                yield _tenants(messages)
        except DRIVER_ERRORS as error:
            raise StoreError("the store announces no changes") from error

    def _writes(self, tenant: str, value: bytes | None, kept: int, sent: StoredChange) -> list[Command]:
        """The commands that put `sent` in the place of `value`, which becomes history, of which so many are kept.

        The oldest go first, and not all at once where the history is now to be shorter: it never has a gap.
        """
        history = _history_key(tenant)
        commands: list[Command] = [("SET", _setting_key(tenant), sent.encode())]
        if value is not None:
            commands.append(("HSET", history, sent.version - 1, value))
            oldest = sent.version - 1 - kept
            if excess := range(oldest, sent.version - self._history_length + 1)[:_MAX_TRIMMED]:
                commands.append(("HDEL", history, *excess))
        return [*commands, ("PUBLISH", _CHANNEL, tenant)]

    async def _confirm(self, pipeline: Pipeline) -> None:
        """Waits until enough replicas have what was written on this very connection. Raises OutcomeUnknown."""
        if self._min_replicas:
            try:
                (replicas,) = await pipeline(("WAIT", self._min_replicas, max(1, round(self._timeout * 400))))
            except REFUSED as error:
                raise OutcomeUnknown("replicas could not be asked to confirm a change") from error
            if replicas < self._min_replicas:
                raise OutcomeUnknown(f"{replicas} of {self._min_replicas} replicas have confirmed a change")

    async def _look_up(self, tenant: str, sent: StoredChange, lost: Exception) -> Setting:
        """Looks once whether `sent` was stored although the answer to its EXEC was `lost`."""
        key, history = _setting_key(tenant), _history_key(tenant)

        async def find(pipeline: Pipeline) -> bool:
            _, value, older = await pipeline(("WATCH", key), ("GET", key), ("HGET", history, sent.version))
            stored = [StoredChange.decode(key, value)] if value is not None else []
            stored += [StoredChange.decode(history, older, sent.version)] if older is not None else []
            found = any(each.change_id == sent.change_id for each in stored)
            if found and self._min_replicas:
                *_, executed = await pipeline(("MULTI",), ("SET", key, value), ("EXEC",))
                if executed is None:
                    raise OutcomeUnknown(
                        "a change was found stored, and changed again before replicas could confirm it"
                    )
                await self._confirm(pipeline)
            return found

        try:
            async with asyncio.timeout(self._timeout / 2):
                found = await self._topology.run(key, find, fresh=True)
        except (*DRIVER_ERRORS, StoreError) as error:
            raise OutcomeUnknown("the answer to a change was lost and could not be looked up") from error
        if not found:
            raise OutcomeUnknown("the answer to a change was lost, and it was not found stored") from lost
        return sent.change.setting

    async def probe_write(self) -> None:
        """Makes a change for a tenant that nobody can be, announces it, and takes it away. Raises StoreError.

        It sends what the operations send and nothing else, so that a server that takes this takes them; what it writes
        expires by itself within a minute where it cannot be taken away.
        """
        tenant = f"check:{uuid.uuid4().hex}"  # no tenant's name has a colon
        try:
            async with self.announcements(), asyncio.timeout(self._timeout):
                await self._topology.run(_setting_key(tenant), partial(self._probe_write, tenant))
        except DRIVER_ERRORS as error:
            raise StoreError("a change could not be rehearsed") from error

    async def _probe_write(self, tenant: str, pipeline: Pipeline) -> None:
        key, history = _setting_key(tenant), _history_key(tenant)
        await pipeline(("WATCH", key, history), ("UNWATCH",))
        await pipeline(("WATCH", key, history), ("GET", key), ("HLEN", history), ("TIME",))
        # A hash without fields is no key any more: the history, which could not be given an expiry, is never there.
        writes = [("SET", key, "", "PX", 60_000), ("HSET", history, 1, ""), ("HDEL", history, 1)]
        *_, executed = await pipeline(("MULTI",), *writes, ("PUBLISH", _CHANNEL, tenant), ("EXEC",))
        if executed is None:
            raise StoreError("the store refused a transaction without a rival")
        await self._confirm(pipeline)
        await pipeline(("EXISTS", key, history), ("HGET", history, 1), ("HMGET", history, 1), ("SET", key, "", "PX", 1))

    async def close(self) -> None:
        """See `Store`."""
        await self._topology.close()


async def _tenants(messages: AsyncIterator[bytes | None]) -> AsyncIterator[str | None]:
    try:
        async for message in messages:
            yield None if message is None else message.decode(errors="replace")
    except DRIVER_ERRORS as error:
        raise StoreError("the store announces no changes any more") from error


def _setting_key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}"


def _history_key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}:history"


@dataclass(slots=True)
class _Attempt:
    """A change on its way: what is asked for, and what was sent to be stored and may have been."""

    tenant: str
    enabled: bool
    author: Author
    expected: Expected
    sent: StoredChange | None = None
