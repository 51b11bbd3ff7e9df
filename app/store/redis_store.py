"""The store on Redis: keys, stored form, transactions.

A tenant has two keys, `external_oms:{<tenant>}` and `external_oms:{<tenant>}:history`; the braces are their hash tag on
a Redis Cluster. The first is the newest change, as a JSON object: `enabled`, `version`, `at` (ms since 1970, by the
store's clock), `by` (the token's subject), `request` (the request's identifier) and `id` (the change's own). The second
is a hash of the changes before it, each under its version, as they stood in the first. With each change the tenant's
name is published to the channel `external_oms:changes`.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import NEVER_SET, Author, Change, Expected, Setting
from app.store.connections import DRIVER_ERRORS, REFUSED, Command, Connections, Exchange
from app.store.inspection import Facts, facts_from

_CHANNEL = "external_oms:changes"

# What one change takes away of a history that is longer than it is to be.
_MAX_TRIMMED = 100


class RedisStore:
    """The `Store` on a Redis server.

    `timeout` is in seconds and bounds each operation, connecting included, but for the look-up of a change whose answer
    was lost: that has half of it again. `history_length` changes are kept.
    """

    def __init__(self, connections: Connections, timeout: float, history_length: int) -> None:
        self._connections = connections
        self._timeout = timeout
        self._history_length = history_length

    async def current(self, tenant: str) -> Setting:
        """See `Store`."""
        try:
            async with asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                (value,) = await exchange(("GET", _setting_key(tenant)))
        except DRIVER_ERRORS as error:
            raise StoreError("the setting could not be read") from error
        return _setting(value)

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """See `Store`."""
        key, history, sent = _setting_key(tenant), _history_key(tenant), None
        try:
            async with asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                # HLEN is refused for a key of another type; EXEC would notice after it has written the setting.
                _, value, kept, time = await exchange(
                    ("WATCH", key, history), ("GET", key), ("HLEN", history), ("TIME",)
                )
                stands = _setting(value)
                conflict = expected is not None and stands.version not in expected
                if conflict or stands.enabled == enabled:
                    await exchange(("UNWATCH",))
                else:
                    sent = _Stored.make(Setting(enabled, stands.version + 1), time, author)
                    writes = self._writes(key, history, value, kept, sent)
                    announcement = ("PUBLISH", _CHANNEL, tenant)
                    *_, executed = await exchange(("MULTI",), *writes, announcement, ("EXEC",))
                    if executed is None:
                        conflict, sent = True, None
                        stands = _setting(*await exchange(("GET", key)))
                    else:
                        stands = sent.change.setting
        except REFUSED as error:
            raise StoreError("the change was rejected") from error
        except DRIVER_ERRORS as error:
            if sent is None:
                raise StoreError("the change could not be made") from error
            return await self._look_up(key, history, sent, error)
        if conflict:
            raise ConcurrentUpdate(stands.version)
        return stands

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """See `Store`."""
        key, history = _setting_key(tenant), _history_key(tenant)
        try:
            async with asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                (value,) = await exchange(("GET", key))
                newest = _setting(value).version
                top = newest if before is None else min(newest, before - 1)
                versions = range(top, max(0, newest - self._history_length), -1)[:limit]
                older = [version for version in versions if version != newest]
                (values,) = await exchange(("HMGET", history, *older)) if older else ([],)
        except DRIVER_ERRORS as error:
            raise StoreError("the history could not be read") from error
        kept = [value, *values] if newest in versions else values
        # None: a change was made meanwhile, and the oldest of these went.
        return [_Stored.decode(each).change for each in kept if each is not None]

    @contextlib.asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[str]]:
        """See `Store`."""
        try:
            async with self._connections.subscribe(_CHANNEL, self._timeout) as messages:
                yield (message.decode() async for message in messages)
        except DRIVER_ERRORS as error:
            raise StoreError("the store announces no changes") from error

    def _writes(self, key: str, history: str, value: bytes | None, kept: int, sent: "_Stored") -> list[Command]:
        """The commands that put `sent` in the place of `value`, which becomes history, of which so many are kept.

        The oldest go first, and not all at once where the history is now to be shorter: it never has a gap.
        """
        commands: list[Command] = [("SET", key, sent.encode())]
        if value is not None:
            commands.append(("HSET", history, sent.version - 1, value))
            oldest = sent.version - 1 - kept
            if excess := range(oldest, sent.version - self._history_length + 1)[:_MAX_TRIMMED]:
                commands.append(("HDEL", history, *excess))
        return commands

    async def _look_up(self, key: str, history: str, sent: "_Stored", lost: Exception) -> Setting:
        """Looks once whether `sent` was stored although the answer to its EXEC was `lost`."""
        try:
            async with asyncio.timeout(self._timeout / 2), self._connections.fresh() as exchange:
                values = await exchange(("GET", key), ("HGET", history, sent.version))
            found = any(value is not None and _Stored.decode(value).change_id == sent.change_id for value in values)
        except (*DRIVER_ERRORS, StoreError) as error:
            raise OutcomeUnknown("the answer to a change was lost and could not be looked up") from error
        if not found:
            raise OutcomeUnknown("the answer to a change was lost, and it was not found stored") from lost
        return sent.change.setting

    async def rehearse(self) -> None:
        """Makes a change for a tenant that nobody can be, announces it, and takes it away. Raises StoreError.

        It sends what the operations send and nothing else, so that a server that takes this takes them; what it writes
        expires by itself within a minute where it cannot be taken away.
        """
        tenant = f"check:{uuid.uuid4().hex}"  # no tenant's name has a colon
        try:
            async with self.announcements(), asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                await _rehearse(exchange, tenant)
        except DRIVER_ERRORS as error:
            raise StoreError("a change could not be rehearsed") from error

    async def facts(self) -> Facts:
        """What the server says of itself. Raises StoreError."""
        try:
            async with asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                return await facts_from(exchange)
        except DRIVER_ERRORS as error:
            raise StoreError("the store says nothing of itself") from error

    async def close(self) -> None:
        """See `Store`."""
        await self._connections.close()


async def _rehearse(exchange: Exchange, tenant: str) -> None:
    key, history = _setting_key(tenant), _history_key(tenant)
    await exchange(("WATCH", key, history), ("UNWATCH",))
    await exchange(("WATCH", key, history), ("GET", key), ("HLEN", history), ("TIME",))
    # A hash without fields is no key any more: the history, which could not be given an expiry, is never there.
    writes = [("SET", key, "", "PX", 60_000), ("HSET", history, 1, ""), ("HDEL", history, 1)]
    *_, executed = await exchange(("MULTI",), *writes, ("PUBLISH", _CHANNEL, tenant), ("EXEC",))
    if executed is None:
        raise StoreError("the store refused a transaction without a rival")
    await exchange(("HGET", history, 1), ("HMGET", history, 1), ("SET", key, "", "PX", 1))


def _setting_key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}"


def _history_key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}:history"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A change in its stored form, with an identifier of its own."""

    change: Change
    change_id: str

    @property
    def version(self) -> int:
        return self.change.setting.version

    def encode(self) -> str:
        fields = {
            "enabled": self.change.setting.enabled,
            "version": self.version,
            "at": round(self.change.changed_at.timestamp() * 1000),
            "by": self.change.author.subject,
            "request": self.change.author.request_id,
            "id": self.change_id,
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def make(cls, setting: Setting, time: Sequence[bytes], author: Author) -> Self:
        """A change that is to be stored. `time` is the store's, as TIME answers it: seconds and microseconds."""
        seconds, microseconds = map(int, time)
        changed_at = datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=microseconds // 1000)
        return cls(Change(setting, changed_at, author), uuid.uuid4().hex)

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """What `encode` made. Raises StoreError for anything else: an unreadable setting is no default."""
        try:
            fields = json.loads(value)
            enabled, version, change_id = fields["enabled"], fields["version"], fields["id"]
            author = Author(fields["by"], fields["request"])
            at = fields["at"]
            changed_at = datetime.fromtimestamp(at / 1000, UTC)
        except (ValueError, LookupError, TypeError, OverflowError, OSError, RecursionError) as error:
            raise StoreError("a stored change cannot be read") from error
        types = [type(field) for field in (enabled, version, at, change_id, author.request_id)]
        subject_is_text = author.subject is None or type(author.subject) is str
        if types != [bool, int, int, str, str] or version < 1 or not subject_is_text:
            raise StoreError("a stored change has a field of the wrong type")
        return cls(Change(Setting(enabled, version), changed_at, author), change_id)


def _setting(value: bytes | None) -> Setting:
    return NEVER_SET if value is None else _Stored.decode(value).change.setting
