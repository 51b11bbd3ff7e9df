"""A session: the server's side of one connection."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.database import Command, Reply


@dataclass(eq=False, slots=True)
class Session:
    """The server's side of one connection. `reply` sends to the client, and `close` ends the connection."""

    host: str
    name: str
    reply: Callable[[Reply], object]
    close: Callable[[], object]
    is_open: bool = True
    channel: bytes | None = None  # that it is subscribed to
    is_asking: bool = False
    watched: dict[bytes, int] = field(default_factory=dict)
    queued: list[Command] | None = None
    is_aborted: bool = False
    offset: int = 0  # of its last write, in the server's log
    wait: asyncio.TimerHandle | None = None  # the end of a WAIT, while one is running
    later: deque[Command] = field(default_factory=deque)  # what arrived during WAIT
