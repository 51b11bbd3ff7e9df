"""A pool of connections to one Redis server, on redis-py's connection class."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Final, Self

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from app.errors import StoreError
from app.store.pipeline import PipelineWork, StoreConnectionError, T, pipeline_on
from app.store.read_batching import ReadBatcher
from app.store.redis_url import HostPort, format_host_port

# Per worker and server. If all are in use, an operation waits for one within its time limit.
MAX_CONNECTIONS: Final = 32

# Everything that redis-py, sockets and time limits raise. (TimeoutError is an OSError.)
DRIVER_ERRORS: Final = (RedisError, OSError)

# Error replies, a subset: the server has not run the command.
ERROR_REPLY: Final = ResponseError

# What an operation raises if the connection gave no reply: cut off by a time limit, or broken.
_NO_REPLY: Final = (asyncio.CancelledError, OSError, RedisConnectionError)

# In bytes. A tenant's name has at most 63, so the service did not publish a longer message. It is dropped.
_MAX_MESSAGE: Final = 63

# In seconds: the time limit for servers to complete the TLS shutdown.
_CLOSE_TIMEOUT: Final = 0.1


class ServerConnections:
    """The `Topology` of one server: a pool of connections. No command is ever sent twice.

    `make` returns a new, unconnected connection. `name` is host:port, or the path of a Unix socket. `hostname` is the
    host, unless that is an IP address. Each operation has a connection to itself. Only the reads of a batch share one.
    `on_connect` runs first on each new connection, which is closed if it raises.
    """

    def __init__(
        self,
        make: Callable[[], AbstractConnection],
        name: str,
        on_connect: PipelineWork[None] | None = None,
        hostname: str | None = None,
    ) -> None:
        self.name = name
        self._hostname = hostname
        self._lookup: asyncio.Task[None] | None = None
        self._on_connect = on_connect
        self._make = make
        self._capacity = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[AbstractConnection] = []
        self._open: set[AbstractConnection] = set()
        self._closed = False
        self._reads = ReadBatcher(partial(self.run, None))

    @classmethod
    def to(
        cls,
        url: str,
        *,
        tls_verify: bool = True,
        on_connect: PipelineWork[None] | None = None,
        **target: str | int | None,
    ) -> Self:
        """Return a pool for the server at `url` (`redis://`, `rediss://` or `unix://`). No connection is opened yet.

        `target` adds what the URL does not name: the login, or `host`, `port` and `db`.
        """
        # Only the URL parser of redis-py's pool is used: to get and release a connection costs 24 µs there, 3 µs here.
        # Our own time limits apply, so the driver has none. Without RESP 3 and a driver name, connecting takes no extra
        # round trip. With RESP 3, redis-py 8.1 would also skip the check for a connection that the server closed.
        unverified = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        pool = redis.asyncio.ConnectionPool.from_url(
            url,
            **target,
            **({} if tls_verify or not url.startswith("rediss:") else unverified),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            protocol=2,
            driver_info=None,
        )
        made = pool.connection_kwargs
        if "path" in made:
            return cls(pool.make_connection, made["path"], on_connect)
        host = made["host"]
        hostname = None if _is_ip_address(host) else host
        return cls(pool.make_connection, format_host_port((host, made["port"])), on_connect, hostname)

    def read(self, key: str, limit: float) -> Awaitable[bytes | None]:
        """See `Topology`."""
        return self._reads.get(key, limit)

    async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        """See `Topology`. The key may be None. Without `fresh`, it waits until a connection of the pool is free.

        If the work then raises, its connection is closed, because a reply may be outstanding. If it raises because
        there was no reply, the idle connections are closed too.
        """
        if fresh:
            async with self._connection() as connection:
                return await work(pipeline_on(connection))
        async with self._capacity:
            self._raise_if_closed()
            idle = self._idle
            connection = await self._take_idle(idle) or await self._connect()
            try:
                result = await work(pipeline_on(connection))
            except BaseException as error:
                await self._disconnect(connection)
                if isinstance(error, ReadOnlyError):
                    self._idle = []  # a replica now, and its data may be stale: close those in use when released, too
                    await self._disconnect_all(idle)
                elif isinstance(error, _NO_REPLY):
                    await self._disconnect_all(idle)
                raise
            if idle is self._idle and not self._closed:
                idle.append(connection)
            else:
                await self._disconnect(connection)
            return result

    async def check_reads(self, keys: Sequence[str]) -> None:
        """See `Topology`. Raises MovedError if the server is a node of a cluster, and another node has a key."""
        await self.run(None, lambda pipeline: pipeline(*(("GET", key) for key in keys)))

    async def servers(self) -> tuple[Sequence[Self], Sequence[HostPort]]:
        """See `Topology`."""
        return [self], []

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        """Open a connection that is not in the pool, and close it after the block."""
        connection = await self._connect()
        try:
            yield connection
        finally:
            await self._disconnect(connection)

    async def _take_idle(self, idle: list[AbstractConnection]) -> AbstractConnection | None:
        """Return an idle connection that has no unread data and is not closed, or None. Closes unusable ones."""
        while idle:
            connection = idle.pop()
            with contextlib.suppress(*DRIVER_ERRORS):
                if not await connection.can_read():
                    return connection
            await self._disconnect(connection)
        return None

    async def _connect(self) -> AbstractConnection:
        if self._hostname is not None:
            # A lookup that hangs holds a thread after its caller has left, and all lookups of a process share a few
            # threads. So new connections wait for one lookup. Then each makes its own, which is usually quick.
            if self._lookup is None or self._lookup.done():
                self._lookup = asyncio.create_task(_look_up(self._hostname))
            await asyncio.wait([self._lookup])
        self._raise_if_closed()
        connection = self._make()
        self._open.add(connection)
        try:
            with _hiding_login_replies():
                await connection.connect()
            if self._on_connect is not None:
                await self._on_connect(pipeline_on(connection))
            self._raise_if_closed()  # again: `close` may have run while this connected
        except BaseException:
            await self._disconnect(connection)
            raise
        return connection

    async def _disconnect(self, connection: AbstractConnection) -> None:
        self._open.discard(connection)
        await connection.disconnect(nowait=True)

    @contextlib.asynccontextmanager
    async def subscribe(
        self, channel: str, limit: float, silence: float = 5.0
    ) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """See `Topology`. After `silence` seconds without a message, the server must answer within `limit` seconds."""
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(limit):
                connection = await stack.enter_async_context(self._connection())
                # PING fails while the server loads its data. SUBSCRIBE alone would succeed.
                for reply in await pipeline_on(connection)(("PING",), ("SUBSCRIBE", channel), errors=True):
                    # After a failed snapshot, Redis rejects writes and PING, but not reads.
                    if isinstance(reply, Exception) and not str(reply).startswith("MISCONF"):
                        raise reply
            yield self._messages(connection, channel, limit, silence)

    async def _messages(
        self, connection: AbstractConnection, channel: str, limit: float, silence: float
    ) -> AsyncIterator[bytes | None]:
        """Yield the messages. Raises TimeoutError if the server does not answer in time."""
        is_asked = False
        while True:
            try:
                async with asyncio.timeout(limit if is_asked else silence):
                    kind, *_, data = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                if is_asked:
                    await self._disconnect_all(self._idle)
                    raise
                # A second SUBSCRIBE changes nothing, and is answered in every state of the server. PING is not.
                await connection.send_packed_command(connection.pack_command("SUBSCRIBE", channel))
                is_asked = True
            else:
                is_asked = False
                if kind == b"message" and len(data) <= _MAX_MESSAGE:
                    yield data

    async def _disconnect_all(self, idle: list[AbstractConnection]) -> None:
        """Disconnect the `idle` connections, because they may be broken too, or read from a replica."""
        while idle:
            await self._disconnect(idle.pop())

    async def close(self) -> None:
        """See `Topology`. Callers that wait for a connection get a StoreConnectionError."""
        self._closed = True
        if self._lookup is not None:
            self._lookup.cancel()
        with contextlib.suppress(TimeoutError):  # without a limit, TLS shutdown waits 30 s for a server that hangs
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await asyncio.gather(*(connection.disconnect() for connection in self._open))

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise StoreConnectionError("the connections to this server are closed")


@contextlib.asynccontextmanager
async def within(limit: float, failure: str) -> AsyncIterator[None]:
    """Limit the block to that many seconds. Raise StoreError with the text `failure` if the driver fails in it."""
    try:
        async with asyncio.timeout(limit):
            yield
    except DRIVER_ERRORS as error:
        raise StoreError(failure) from error


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _look_up(hostname: str) -> None:
    """Look up a hostname. Its errors are ignored, because connecting raises the same."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: not a hostname
        await asyncio.get_running_loop().getaddrinfo(hostname, None)


# Replies to AUTH and SELECT that begin like this do not quote the password.
_QUOTABLE_REPLIES: Final = (
    "DB index is out of range",
    "SELECT is not allowed in cluster mode",
    "unknown command 'SELECT'",
    "DENIED ",
)


@contextlib.contextmanager
def _hiding_login_replies() -> Iterator[None]:
    try:
        yield
    except NoPermissionError:
        raise
    except ResponseError as error:
        if str(error).startswith(_QUOTABLE_REPLIES):
            raise
        # Leave out the reply: a server without AUTH quotes the command, with the password.
        raise StoreConnectionError("the server rejected the login, or the number of the database") from None
