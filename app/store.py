"""What the service remembers: keys, stored form, transactions. The one module that knows Redis.

A tenant has one key, `external_oms:{<tenant>}`; the braces are its hash tag on a Redis Cluster. Its value is a JSON
object: `enabled`, `version`, and `change`, the identifier of the change that wrote it.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.model import NEVER_SET, Setting

# A worker's share of the store's connections; who finds none free waits, within the limit of its operation.
_MAX_CONNECTIONS = 32

# All that redis-py raises, and what the sockets below it and the limit of time do (TimeoutError is an OSError).
_DRIVER_ERRORS = (RedisError, OSError)

Command = tuple[str | int | bytes, ...]
Exchange = Callable[..., Awaitable[list[Any]]]


class Store(Protocol):
    """One setting per tenant. Each operation ends within a limit of time of its own."""

    async def current(self, tenant: str) -> Setting:
        """The setting as it stands; version 0 and not enabled where it was never set. Raises StoreError."""

    async def change(self, tenant: str, enabled: bool) -> Setting:
        """The setting that stands once `enabled` is stored: one version on, or the same where nothing changes.

        Raises ConcurrentUpdate where another writer changed the setting meanwhile: then this change is not stored.
        Raises StoreError where the store failed, and then nothing was stored, but for its kind OutcomeUnknown, where
        the change may have been stored.
        """

    async def close(self) -> None:
        """Lets go of the store's connections."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A setting in its stored form, with the identifier of the change that wrote it."""

    setting: Setting
    change_id: str | None

    def encode(self) -> str:
        fields = {"enabled": self.setting.enabled, "version": self.setting.version, "change": self.change_id}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def decode(cls, value: bytes | None) -> Self:
        """What `encode` made. Raises StoreError for anything else: an unreadable setting is no default."""
        if value is None:
            return cls(NEVER_SET, None)
        try:
            fields = json.loads(value)
            enabled, version, change_id = fields["enabled"], fields["version"], fields["change"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise StoreError("the stored setting cannot be read") from error
        if type(enabled) is not bool or type(version) is not int or version < 1 or type(change_id) is not str:
            raise StoreError("the stored setting has a field of the wrong type")
        return cls(Setting(enabled, version), change_id)


class Connections:
    """A pool's connections, lent one at a time; nothing is ever sent twice."""

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        self._pool = pool
        # redis-py's own pool that waits loses a turn where the one that it wakes has just been cancelled (Python 3.11).
        self._free = asyncio.Semaphore(_MAX_CONNECTIONS)

    @classmethod
    def to(cls, url: str) -> Self:
        """Connections to the server at `url` (`redis://`, `rediss://` or `unix://`); none is opened yet.

        The limits of time are the store's. Without RESP 3 and a driver's name a new connection costs no round trip of
        its own, and one that the server closed is noticed as it is lent (redis-py 8.1 skips that check with RESP 3).
        """
        return cls(
            redis.asyncio.ConnectionPool.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=None,
                protocol=2,
                driver_info=None,
            )
        )

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Exchange]:
        """A connection, as the function that has commands answered on it, all in one round trip.

        The function returns one reply for each command, or raises the first error among them. A connection that an
        exception passes through is closed: it may be in the middle of anything.
        """
        async with self._free:
            connection = await self._pool.get_connection()
            try:
                yield _exchange_on(connection)
            except BaseException as error:
                await connection.disconnect(nowait=True)
                if isinstance(error, ReadOnlyError):
                    await self._forget()
                raise
            finally:
                # Shielded, or a second cancellation would keep the connection from the pool for good.
                await asyncio.shield(self._pool.release(connection))

    @contextlib.asynccontextmanager
    async def fresh(self) -> AsyncIterator[Exchange]:
        """As `lend`, on a connection that is made for this one use."""
        connection = self._pool.make_connection()
        try:
            await connection.connect()
            yield _exchange_on(connection)
        finally:
            await connection.disconnect(nowait=True)

    async def _forget(self) -> None:
        """Lets go of all connections: the server has become a replica, and reads from it would be of the past."""
        await self._pool.update_active_connections_for_reconnect()
        await self._pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.aclose()


def _exchange_on(connection: Any) -> Exchange:
    async def exchange(*commands: Command) -> list[Any]:
        await connection.send_packed_command(connection.pack_commands(commands))
        replies = [await _reply(connection) for _ in commands]
        for reply in replies:
            _raise_errors(reply)
        return replies

    return exchange


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _raise_errors(reply: Any) -> None:
    """Raises the reply if it is an error, or the first error inside the reply to an EXEC."""
    for part in reply if isinstance(reply, list) else (reply,):
        if isinstance(part, Exception):
            raise part


class RedisStore:
    """The `Store` on a Redis server. `timeout` is in seconds and bounds each operation, connecting included."""

    def __init__(self, connections: Connections, timeout: float) -> None:
        self._connections = connections
        self._timeout = timeout

    async def current(self, tenant: str) -> Setting:
        """See `Store`."""
        try:
            async with asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                (value,) = await exchange(("GET", _key(tenant)))
        except _DRIVER_ERRORS as error:
            raise StoreError("the setting could not be read") from error
        return _Stored.decode(value).setting

    async def change(self, tenant: str, enabled: bool) -> Setting:
        """See `Store`."""
        key, wanted = _key(tenant), None
        try:
            async with asyncio.timeout(self._timeout), self._connections.lend() as exchange:
                _, value = await exchange(("WATCH", key), ("GET", key))
                current = _Stored.decode(value).setting
                if current.enabled == enabled:
                    await exchange(("UNWATCH",))
                    return current
                wanted = _Stored(Setting(enabled, current.version + 1), uuid.uuid4().hex)
                *_, executed = await exchange(("MULTI",), ("SET", key, wanted.encode()), ("EXEC",))
        except ResponseError as error:
            raise StoreError("the change was rejected") from error
        except _DRIVER_ERRORS as error:
            if wanted is None:
                raise StoreError("the change could not be made") from error
            return await self._look_up(key, wanted, error)
        if executed is None:
            raise ConcurrentUpdate("Concurrent update detected on external_oms configuration setting.")
        return wanted.setting

    async def _look_up(self, key: str, wanted: _Stored, lost: Exception) -> Setting:
        """Looks once whether `wanted` was stored although the answer to its EXEC was `lost`."""
        try:
            async with asyncio.timeout(self._timeout / 2), self._connections.fresh() as exchange:
                (value,) = await exchange(("GET", key))
        except _DRIVER_ERRORS as error:
            raise OutcomeUnknown("the answer to a change was lost and could not be looked up") from error
        if _Stored.decode(value).change_id != wanted.change_id:
            raise OutcomeUnknown("the answer to a change was lost, and it was not found stored") from lost
        return wanted.setting

    async def close(self) -> None:
        """See `Store`."""
        await self._connections.close()


def _key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}"
