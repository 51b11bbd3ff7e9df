"""Connections to one Redis server, lent one at a time, and what has to be known of redis-py for that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from app.store.address import HostPort, format_host_port
from app.store.pipeline import Pipeline, PipelineWork, T, pipeline_on
from app.store.read_batching import ReadBatcher

# A worker's share of the store's connections; who finds none free waits, within the limit of its operation.
MAX_CONNECTIONS: Final = 32

# All that redis-py raises, and what the sockets below it and the limit of time do (TimeoutError is an OSError).
DRIVER_ERRORS: Final = (RedisError, OSError)

# Of these, the answers of the server itself: what it refuses it has not done.
REFUSED: Final = ResponseError

# In bytes: a tenant's name has at most 63. Any longer message is none of the service's, and is not kept.
_MAX_MESSAGE: Final = 63

# In seconds: how long servers may take to agree to the end of their connections.
_FAREWELL: Final = 0.1


class ServerConnections:
    """The `Topology` of one server: connections, lent one at a time; nothing is ever sent twice."""

    def __init__(self, make: Callable[[], Any], name: str) -> None:
        # Where the server is: host:port, or the path of its socket.
        self.name = name
        self._make = make
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[Any] = []
        self._open: set[Any] = set()
        self._closed = False
        self._reads = ReadBatcher(self.lend)

    @classmethod
    def to(cls, url: str, *, tls_verify: bool = True, **login: str | int | None) -> Self:
        """Connections to the server at `url` (`redis://`, `rediss://` or `unix://`); none is opened yet.

        The limits of time are the store's. Without RESP 3 and a driver's name a new connection costs no round trip of
        its own, and one that the server closed is noticed as it is lent (redis-py 8.1 skips that check with RESP 3).
        Of redis-py's pool nothing is used but how it reads an address: lending a connection and taking it back costs
        it 24 µs, what is below 3.
        """
        unverified = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        pool = redis.asyncio.ConnectionPool.from_url(
            url,
            **login,
            **({} if tls_verify or not url.startswith("rediss:") else unverified),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            protocol=2,
            driver_info=None,
        )
        kept = pool.connection_kwargs
        return cls(
            pool.make_connection, kept["path"] if "path" in kept else format_host_port((kept["host"], kept["port"]))
        )

    def read(self, key: str, limit: float) -> Awaitable[bytes | None]:
        """See `Topology`."""
        return self._reads.join(key, limit)

    async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False) -> T:
        """See `Topology`."""
        async with self._fresh() if fresh else self.lend() as pipeline:
            return await work(pipeline)

    async def servers(self) -> tuple[Sequence[Self], Sequence[HostPort]]:
        """See `Topology`."""
        return [self], []

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Pipeline]:
        """A connection. One that an exception passes through is closed: it may be in the middle of anything."""
        async with self._free:
            self._refuse_if_closed()
            idle = self._idle
            connection = await self._ready(idle) or await self._connect()
            try:
                yield pipeline_on(connection)
            except BaseException as error:
                await self._end(connection)
                if isinstance(error, ReadOnlyError):
                    await self._forget()
                raise
            if idle is self._idle and not self._closed:
                idle.append(connection)
            else:
                await self._end(connection)

    @contextlib.asynccontextmanager
    async def _fresh(self) -> AsyncIterator[Pipeline]:
        async with self._connection() as connection:
            yield pipeline_on(connection)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection that is made for this one use."""
        connection = await self._connect()
        try:
            yield connection
        finally:
            await self._end(connection)

    async def _ready(self, idle: list[Any]) -> Any:
        """An idle connection on which nothing came since its last reply, not even its end; None where there is none."""
        while idle:
            connection = idle.pop()
            with contextlib.suppress(*DRIVER_ERRORS):
                if not await connection.can_read():
                    return connection
            await self._end(connection)
        return None

    async def _connect(self) -> Any:
        self._refuse_if_closed()
        connection = self._make()
        self._open.add(connection)
        try:
            with _logging_in():
                await connection.connect()
            self._refuse_if_closed()  # meanwhile
        except BaseException:
            await self._end(connection)
            raise
        return connection

    async def _end(self, connection: Any) -> None:
        self._open.discard(connection)
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
                await pipeline_on(connection)(("PING",), ("SUBSCRIBE", channel))
            yield _messages(connection, limit, silence)

    async def _forget(self) -> None:
        """Lets go of all connections: the server has become a replica, and reads from it would be of the past.

        Those that are lent now are not taken back.
        """
        left, self._idle = self._idle, []
        for connection in left:
            await self._end(connection)

    async def close(self) -> None:
        """See `Topology`. Whoever waits for a connection gets none."""
        self._closed = True
        with contextlib.suppress(TimeoutError):  # over TLS, a server that hangs would not be left for 30 seconds
            async with asyncio.timeout(_FAREWELL):
                await asyncio.gather(*(connection.disconnect() for connection in self._open))

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
            if kind == b"message" and len(data) <= _MAX_MESSAGE:
                yield data
