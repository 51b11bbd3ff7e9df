"""One round trip: commands out, replies back."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import hiredis
from redis import crc, exceptions

T = TypeVar("T")

Command = tuple[str | int | bytes, ...]

# For the modules of `app.store` that do not import the driver: its errors, and the slot of a key on a cluster.
driver_errors = exceptions
key_slot = crc.key_slot


class Pipeline(Protocol):
    """Has commands answered on one connection, all in one round trip.

    Returns one reply for each command, or raises the first error among them; asked for `errors`, it returns those too.
    """

    def __call__(self, *commands: Command, errors: bool = False) -> Awaitable[list[Any]]: ...  # noqa: D102 - see above


PipelineWork = Callable[[Pipeline], Awaitable[T]]

_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub has one word a command


def pipeline_on(connection: Any) -> Pipeline:
    """The function that has commands answered on `connection`.

    Commands are packed by hiredis, which redis-py reads replies with: its own packing costs 5 µs for each command.
    """

    async def pipeline(*commands: Command, errors: bool = False) -> list[Any]:
        if not connection.is_connected:
            raise ConnectionError("closed meanwhile")  # redis-py would connect anew, and a WATCH would be forgotten
        await connection.send_packed_command(b"".join(map(_pack, commands)))
        replies = [await _reply(connection) for _ in commands]
        if not errors:
            for reply in replies:
                _raise_errors(reply)
        return replies

    return pipeline


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except driver_errors.ResponseError as error:
        return error


def _raise_errors(reply: Any) -> None:
    """Raises the reply if it is an error, or the first error inside the reply to an EXEC."""
    for part in reply if isinstance(reply, list) else (reply,):
        if isinstance(part, Exception):
            raise part
