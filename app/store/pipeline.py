"""A pipeline: several commands in one round trip."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import hiredis
from redis import crc, exceptions
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import AbstractConnection

T = TypeVar("T")

Command = tuple[str | int | bytes, ...]

# redis-py's errors and its function for a key's slot, for modules that do not import redis-py.
AskError = exceptions.AskError
AuthenticationError = exceptions.AuthenticationError
BusyLoadingError = exceptions.BusyLoadingError
MovedError = exceptions.MovedError
RedisError = exceptions.RedisError
ResponseError = exceptions.ResponseError
TryAgainError = exceptions.TryAgainError
key_slot = crc.key_slot


class StoreConnectionError(ConnectionError):
    """A failed connection that `app.store` has found itself. The text contains no secret."""


@contextlib.contextmanager
def parsing_reply_of(kind: str) -> Iterator[None]:
    """Raise StoreConnectionError if the block cannot parse a reply, because the server is not a `kind`."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError):
        raise StoreConnectionError(f"its reply is not that of a {kind}") from None


class Pipeline(Protocol):
    """Sends commands on one connection in one round trip and returns one reply per command.

    Raises the first error reply. With `errors`, error replies are returned as exceptions instead.
    """

    def __call__(self, *commands: Command, errors: bool = False) -> Awaitable[list[Any]]: ...  # noqa: D102 - see above


PipelineWork = Callable[[Pipeline], Awaitable[T]]

_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub only has tuples of one


def pipeline_on(connection: AbstractConnection) -> Pipeline:
    """Return the pipeline of `connection`, a connected connection of redis-py.

    hiredis packs the commands, because redis-py's own packing costs 5 µs more per command.
    """

    async def pipeline(*commands: Command, errors: bool = False) -> list[Any]:
        if connection._writer is None or connection._writer.is_closing():
            # After a disconnect, redis-py would connect again, and the server would no longer have the WATCH. After a
            # reset, uvloop would raise RuntimeError, which no caller expects.
            raise StoreConnectionError("the connection was closed in between")
        await connection.send_packed_command(b"".join(map(_pack, commands)))
        replies = await _read_replies(connection, len(commands))
        if not errors:
            raise_errors(replies)
        return replies

    return pipeline


async def _read_replies(connection: AbstractConnection, count: int) -> list[Any]:
    """Read `count` replies, error replies among them.

    The first waits for the server. Most others have arrived with it, so they are taken from redis-py's parser, without
    its coroutines for one reply.
    """
    parsed = connection._parser._reader.gets  # type: ignore[attr-defined]  # of hiredis
    replies: list[Any] = []
    try:
        while len(replies) < count:
            reply = parsed() if replies else NOT_ENOUGH_DATA
            if reply is NOT_ENOUGH_DATA:
                try:
                    reply = await connection.read_response()
                except ResponseError as error:
                    reply = error
            elif isinstance(reply, exceptions.ConnectionError):  # such as "LOADING"
                raise reply
            replies.append(reply)
    except ValueError:  # redis-py cannot parse the address in a MOVED or an ASK
        raise StoreConnectionError("the server named an unusable address") from None
    return replies


def raise_errors(replies: Sequence[Any]) -> None:
    """Raise the first error in `replies`, or inside the reply to an EXEC."""
    for reply in replies:
        for part in reply if isinstance(reply, list) else (reply,):
            if isinstance(part, Exception):
                raise part
