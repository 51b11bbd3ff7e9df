"""The store in Redis: its keys and transactions.

A tenant has two keys, `external_oms:{<tenant>}` and `external_oms:{<tenant>}:history`. The braces mark a hash tag, so
that a Redis Cluster keeps both on one node. The first key is a string: the newest change in its stored form. The second
is a hash of the earlier changes, with their versions as fields and their stored forms as values. With `min_replicas`,
`external_oms:{<tenant>}:confirmed` exists for moments. Each change publishes the tenant's name to the channel
`external_oms:changes`.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import Author, Change, Expected, Setting, version_of
from app.store.audit import log_change
from app.store.connections import DRIVER_ERRORS, ERROR_REPLY, within
from app.store.pipeline import Command, Pipeline, raise_errors
from app.store.stored_form import decode, encode, new_change, setting_of
from app.store.tenant_scan import TenantPage, list_tenants
from app.store.topology import Topology

_CHANNEL = "external_oms:changes"

# How many entries one change removes from a history that is too long.
_MAX_TRIMMED = 100

# Keys that never exist, because tenant names have no colon. Their hash tags are in different slots.
_PROBE_KEYS = [f"external_oms:{{check:{number}}}" for number in range(16)]


class RedisStore:
    """The `Store` in Redis.

    Each operation, connecting included, ends within `timeout` seconds. If the reply to a change is lost, the lookup of
    its outcome may take half of `timeout` in addition. The store keeps `history_length` changes per tenant. A change
    succeeds once `min_replicas` replicas have it. If that takes more than two fifths of `timeout`, its outcome is
    unknown.
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
        is_stored = False
        try:
            setting = await self._change(attempt)
            is_stored = True
        finally:  # also if the caller is cancelled
            if attempt.sent is not None:
                log_change(tenant, attempt.sent, "stored" if is_stored else "unknown")
        return setting

    async def _change(self, attempt: "_Attempt") -> Setting:
        """Make the attempt, and return the current setting after it. Raises as `change` does."""
        try:
            async with asyncio.timeout(self._timeout):
                # Let the other tasks of this event-loop iteration get ready, so that their commands are sent in a row.
                # A server that sleeps on the same machine then wakes up once: with 16 connections, 11 % more POSTs.
                await asyncio.sleep(0)
                current, is_conflict = await self._topology.run(
                    _setting_key(attempt.tenant), partial(self._write_unless_conflict, attempt), writes=True
                )
        except ERROR_REPLY as error:
            raise StoreError("the change was rejected") from error
        except DRIVER_ERRORS as error:
            if attempt.sent is None:
                raise StoreError("the change could not be made") from error
            return await self._find_sent_change(attempt.tenant, attempt.sent, error)
        if is_conflict:
            raise ConcurrentUpdate(current.version)
        return current

    async def _write_unless_conflict(self, attempt: "_Attempt", pipeline: Pipeline) -> tuple[Setting, bool]:
        """Return the current setting after the attempt, and True if the attempt was a conflict."""
        key, history, attempt.sent = _setting_key(attempt.tenant), _history_key(attempt.tenant), None
        # HLEN fails if the key has another type. HSET would fail too, but only inside EXEC, after SET was executed.
        _, value, history_size, time = await pipeline(
            ("WATCH", key, history), ("GET", key), ("HLEN", history), ("TIME",)
        )
        current = setting_of(key, value)
        is_conflict = attempt.expected is not None and current.version not in attempt.expected
        if is_conflict or current.enabled == attempt.enabled:
            await pipeline(("UNWATCH",))
            if not is_conflict and value is not None:
                await self._confirm(attempt.tenant, pipeline)
            return current, is_conflict
        change = new_change(Setting(attempt.enabled, current.version + 1), time, attempt.author)
        writes = self._writes(attempt.tenant, value, history_size, change)
        await asyncio.sleep(0)  # as in `_change`
        attempt.sent = change
        multi, *queued, executed = await pipeline(("MULTI",), *writes, ("EXEC",), errors=True)
        if isinstance(multi, ERROR_REPLY):  # then each write was executed by itself, unless it was refused, too
            raise OutcomeUnknown("the server refuses MULTI") from multi
        try:
            raise_errors([*queued, executed])
        except ERROR_REPLY:
            attempt.sent = None
            raise
        if executed is None:
            attempt.sent = None
            # EXISTS names both keys, as in `history`: a cluster that moves only one of them has aborted the transaction
            # without another writer. The reply is TRYAGAIN, and this work runs again.
            _, value = await pipeline(("EXISTS", key, history), ("GET", key))
            return setting_of(key, value), True
        await self._wait_for_replicas(pipeline)
        return change.setting, False

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """See `Store`."""
        key, history = _setting_key(tenant), _history_key(tenant)

        async def read(pipeline: Pipeline) -> tuple[bytes | None, dict[int, bytes | None]]:
            # EXISTS names both keys. If a cluster has moved only one of them, the reply is TRYAGAIN, not half the data.
            _, value = await pipeline(("EXISTS", key, history), ("GET", key))
            newest = setting_of(key, value).version
            top = newest if before is None else min(newest, before - 1)
            versions = range(top, max(0, newest - self._history_length), -1)[:limit]
            older = [version for version in versions if version != newest]
            (values,) = await pipeline(("HMGET", history, *older)) if older else ([],)
            return value if newest in versions else None, dict(zip(older, values, strict=True))

        async with within(self._timeout, "the history could not be read"):
            value, values = await self._topology.run(key, read)
        changes = [] if value is None else [decode(key, value)]
        # None: a concurrent change has removed this entry.
        older = [(version, each) for version, each in values.items() if each is not None]
        return changes + [decode(history, each, version) for version, each in older]

    def tenants(self, glob: str) -> AsyncGenerator[TenantPage]:
        """Yield all tenants that match `glob`, a pattern of Redis: see `list_tenants`. Not limited by `timeout`."""
        return list_tenants(self._topology, _setting_key(glob), self._timeout)

    async def ping(self) -> None:
        """See `Store`."""
        async with within(self._timeout, "the store does not answer reads"):
            await self._topology.check_reads(_PROBE_KEYS)

    @contextlib.asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[str | None]]:
        """See `Store`."""
        try:
            async with self._topology.subscribe(_CHANNEL, self._timeout) as messages:
                yield _tenants(messages)
        except DRIVER_ERRORS as error:
            raise StoreError("cannot subscribe to the store's announcements of changes") from error

    def _writes(self, tenant: str, value: bytes | None, history_size: int, sent: Change) -> list[Command]:
        """Return the commands that store `sent` and move the earlier change `value` to the history.

        They also remove the oldest history entries above `history_length`, at most `_MAX_TRIMMED` of them. The versions
        in the history stay contiguous.
        """
        history, version = _history_key(tenant), version_of(sent)
        commands: list[Command] = [("SET", _setting_key(tenant), encode(sent))]
        if value is not None:
            commands.append(("HSET", history, version - 1, value))
            oldest = version - 1 - history_size
            if excess := range(oldest, version - self._history_length + 1)[:_MAX_TRIMMED]:
                commands.append(("HDEL", history, *excess))
        return [*commands, ("PUBLISH", _CHANNEL, tenant)]

    async def _confirm(self, tenant: str, pipeline: Pipeline) -> None:
        """Wait until enough replicas have what this connection has read of `tenant`. Raises OutcomeUnknown."""
        if self._min_replicas:
            # WAIT needs a write on this connection. No client watches this key, so no rival gets a conflict. While the
            # slot moves, the reply is ASK, because the key is new. The caller's work then runs again on a node that may
            # not have the setting yet. Its first command names both keys, so the reply there is TRYAGAIN.
            await pipeline(("SET", f"{_setting_key(tenant)}:confirmed", "", "PX", 1))
            await self._wait_for_replicas(pipeline)

    async def _wait_for_replicas(self, pipeline: Pipeline) -> None:
        """Wait until enough replicas have the writes of this connection. Raises OutcomeUnknown if too few have them."""
        if self._min_replicas:
            try:
                (replicas,) = await pipeline(("WAIT", self._min_replicas, max(1, round(self._timeout * 400))))
            except ERROR_REPLY as error:
                raise OutcomeUnknown("the store rejected WAIT, so no replica has confirmed the change") from error
            if replicas < self._min_replicas:
                raise OutcomeUnknown(f"{replicas} of {self._min_replicas} required replicas have confirmed the change")

    async def _find_sent_change(self, tenant: str, sent: Change, cause: Exception) -> Setting:
        """Return the setting of `sent` if it was stored, after `cause` has lost the reply to its EXEC.

        Tries once, on a fresh connection. Raises OutcomeUnknown if the change is not found or cannot be looked up.
        """
        key, history = _setting_key(tenant), _history_key(tenant)

        async def find(pipeline: Pipeline) -> bool:
            # EXISTS names both keys, as in `history`.
            _, value, older = await pipeline(
                ("EXISTS", key, history), ("GET", key), ("HGET", history, version_of(sent))
            )
            stored = [decode(key, value)] if value is not None else []
            stored += [decode(history, older, version_of(sent))] if older is not None else []
            found = any(each.id == sent.id for each in stored)
            if found:
                await self._confirm(tenant, pipeline)
            return found

        try:
            async with asyncio.timeout(self._timeout / 2):
                found = await self._topology.run(key, find, fresh=True, writes=True)
        except (*DRIVER_ERRORS, StoreError) as error:
            raise OutcomeUnknown("the reply to the change was lost, and its outcome could not be looked up") from error
        if not found:
            raise OutcomeUnknown("the reply to the change was lost, and the change is not in the store") from cause
        return sent.setting

    async def probe_write(self) -> None:
        """Make and announce a change of a tenant that cannot exist, and remove it. Raises StoreError.

        It sends every command that the operations send, and no other. If it succeeds, the server permits all of them.
        If the removal fails, what it wrote expires within a minute.
        """
        tenant = f"check:{os.urandom(16).hex()}"  # tenant names have no colon
        async with self.announcements(), within(self._timeout, "the probe write failed"):
            await self._topology.check_reads(_PROBE_KEYS)
            await self._topology.run(_setting_key(tenant), partial(self._probe_write, tenant), writes=True)

    async def _probe_write(self, tenant: str, pipeline: Pipeline) -> None:
        key, history = _setting_key(tenant), _history_key(tenant)
        await pipeline(("WATCH", key, history), ("UNWATCH",))
        await pipeline(("WATCH", key, history), ("GET", key), ("HLEN", history), ("TIME",))
        # EXPIRE is not among the operations' commands. HDEL of the last field deletes the hash in the same transaction.
        writes = [("SET", key, "", "PX", 60_000), ("HSET", history, 1, ""), ("HDEL", history, 1)]
        *_, executed = await pipeline(("MULTI",), *writes, ("PUBLISH", _CHANNEL, tenant), ("EXEC",))
        if executed is None:
            raise StoreError("the store aborted a transaction although no other client changed its keys")
        await self._confirm(tenant, pipeline)
        await pipeline(("EXISTS", key, history), ("HGET", history, 1), ("HMGET", history, 1), ("SET", key, "", "PX", 1))

    async def close(self) -> None:
        """See `Store`."""
        await self._topology.close()


async def _tenants(messages: AsyncIterator[bytes | None]) -> AsyncIterator[str | None]:
    try:
        async for message in messages:
            yield None if message is None else message.decode(errors="replace")
    except DRIVER_ERRORS as error:
        raise StoreError("the subscription to the store's announcements of changes was lost") from error


def _setting_key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}"


def _history_key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}:history"


@dataclass(slots=True)
class _Attempt:
    """One call of `change`: its arguments, and in `sent` the change that is stored or may be, if any."""

    tenant: str
    enabled: bool
    author: Author
    expected: Expected
    sent: Change | None = None
