"""Connections to one Redis server, lent one at a time, and what has to be known of redis-py for that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Self, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from app.store.address import Place, name_of

# A worker's share of the store's connections; who finds none free waits, within the limit of its operation.
MAX_CONNECTIONS: Final = 32

# All that redis-py raises, and what the sockets below it and the limit of time do (TimeoutError is an OSError).
DRIVER_ERRORS: Final = (RedisError, OSError)

# Of these, the answers of the server itself: what it refuses it has not done.
REFUSED: Final = ResponseError

# In seconds: how long servers may take to agree to the end of their connections.
_FAREWELL: Final = 0.1

T = TypeVar("T")

Command = tuple[str | int | bytes, ...]
Exchange = Callable[..., Awaitable[list[Any]]]
Work = Callable[[Exchange], Awaitable[T]]


class Connections:
    """The `Topology` of one server: a pool's connections, lent one at a time; nothing is ever sent twice."""

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        self._pool = pool
        # redis-py's own pool that waits loses a turn where the one that it wakes has just been cancelled (Python 3.11).
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._own: set[Any] = set()
        self._closed = False

    @classmethod
    def to(cls, url: str, *, tls_verify: bool = True, **login: str | int | None) -> Self:
        """Connections to the server at `url` (`redis://`, `rediss://` or `unix://`); none is opened yet.

        The limits of time are the store's. Without RESP 3 and a driver's name a new connection costs no round trip of
        its own, and one that the server closed is noticed as it is lent (redis-py 8.1 skips that check with RESP 3).
        """
        unverified = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        return cls(
            redis.asyncio.ConnectionPool.from_url(
                url,
                **login,
                **({} if tls_verify or not url.startswith("rediss:") else unverified),
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=None,
                protocol=2,
                driver_info=None,
            )
        )

    async def run(self, key: str | None, work: Work[T], *, fresh: bool = False) -> T:
        """See `Topology`."""
        async with self._fresh() if fresh else self.lend() as exchange:
            return await work(exchange)

    async def servers(self) -> tuple[Sequence[Self], Sequence[Place]]:
        """See `Topology`."""
        return [self], []

    @property
    def name(self) -> str:
        """Where the server is: host:port, or the path of its socket."""
        kept = self._pool.connection_kwargs
        return kept["path"] if "path" in kept else name_of((kept["host"], kept["port"]))

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Exchange]:
        """A connection, as the function that has commands answered on it, all in one round trip.

        The function returns one reply for each command, or raises the first error among them. A connection that an
        exception passes through is closed: it may be in the middle of anything.
        """
        async with self._free:
            self._refuse_if_closed()
            with _logging_in():
                connection = await self._pool.get_connection()
            try:
                self._refuse_if_closed()  # while it connected
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
    async def _fresh(self) -> AsyncIterator[Exchange]:
        async with self._connection() as connection:
            yield _exchange_on(connection)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection that is made for this one use."""
        self._refuse_if_closed()
        connection = self._pool.make_connection()
        self._own.add(connection)
        try:
            with _logging_in():
                await connection.connect()
            self._refuse_if_closed()  # meanwhile
            yield connection
        finally:
            self._own.discard(connection)
            await connection.disconnect(nowait=True)

    @contextlib.asynccontextmanager
    async def subscribe(
        self, channel: str, limit: float, silence: float = 5.0
    ) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """See `Topology`. A connection that was silent for `silence` seconds is asked whether it still stands.

        It has `limit` seconds to answer.
        """
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(limit):
                connection = await stack.enter_async_context(self._connection())
                # A server that is still loading refuses PING, and would take SUBSCRIBE.
                await _exchange_on(connection)(("PING",), ("SUBSCRIBE", channel))
            yield _messages(connection, limit, silence)

    async def _forget(self) -> None:
        """Lets go of all connections: the server has become a replica, and reads from it would be of the past."""
        await self._pool.update_active_connections_for_reconnect()
        await self._pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """See `Topology`. Whoever waits for a connection gets none."""
        self._closed = True
        for connection in list(self._own):
            await connection.disconnect(nowait=True)
        with contextlib.suppress(TimeoutError):  # over TLS, a server that hangs would not be left for 30 seconds
            async with asyncio.timeout(_FAREWELL):
                await self._pool.aclose()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConnectionError("closed meanwhile")


@contextlib.contextmanager
def _logging_in() -> Iterator[None]:
    try:
        yield
    except ResponseError:
        # Not in its own words: a server that knows no AUTH quotes what it was sent.
        raise ConnectionError("the server refuses the login") from None


def _exchange_on(connection: Any) -> Exchange:
    async def exchange(*commands: Command) -> list[Any]:
        if not connection.is_connected:
            raise ConnectionError("closed meanwhile")  # redis-py would connect anew, and a WATCH would be forgotten
        await connection.send_packed_command(connection.pack_commands(commands))
        replies = [await _reply(connection) for _ in commands]
        for reply in replies:
            _raise_errors(reply)
        return replies

    return exchange


async def _messages(connection: Any, limit: float, silence: float) -> AsyncIterator[bytes | None]:
    """Raises TimeoutError once the connection does not stand any more."""
    asked = False
    while True:
        try:
            async with asyncio.timeout(limit if asked else silence):
                kind, *_, data = await connection.read_response(disconnect_on_error=False)
        except TimeoutError:
            if asked:
                raise
            await connection.send_packed_command(connection.pack_command("PING"))
            asked = True
        else:
            asked = False
            if kind == b"message":
                yield data


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
