"""Connections to simulated servers, with the methods of redis-py's that `app.store.connections` uses."""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final, cast

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as ClosedError

from app.store.connections import ServerConnections
from app.store.pipeline import PipelineWork
from tests.simulation.database import Reply
from tests.simulation.network import Channel, Network
from tests.simulation.server import Server
from tests.simulation.session import Session

_END: Final = b"(end of the connection)"  # in the place of a command or a reply


class SimulatedConnection:
    """A connection from a client on `host` to `server`."""

    def __init__(self, network: Network, host: str, server: Server, number: int) -> None:
        self.is_connected = False
        self._network = network
        self._host = host
        self._server = server
        self._number = number
        self._replies: deque[Reply] = deque()
        self._outgoing: list[Reply] = []
        self._parser = SimpleNamespace(_reader=SimpleNamespace(gets=lambda: NOT_ENOUGH_DATA))  # one reply at a time
        self._writer = SimpleNamespace(is_closing=lambda: not self.is_connected)
        self._is_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._commands = Channel(network, server.rates, host, server.host, self._deliver)
        self._answers = Channel(network, server.rates, host, server.host, self._arrive)
        self._session = Session(host, f"{host}#{number}", self._reply, lambda: self._reply(_END))

    def __hash__(self) -> int:
        return self._number  # not the address: the order in a set must be the same in each run

    async def connect(self) -> None:
        await asyncio.sleep(self._network.delay(self._host, self._server.rates))
        await self._network.reach(self._host, self._server.host)
        if not self._server.is_up:
            raise ClosedError("connection refused")
        self._server.open(self._session)
        self.is_connected = True

    async def can_read(self) -> bool:
        return bool(self._replies) or self._is_ended or not self.is_connected

    def pack_command(self, *command: Any) -> Sequence[bytes]:
        return [hiredis.pack_command(command)]

    async def send_packed_command(self, packed: bytes | Sequence[bytes]) -> None:
        reader = hiredis.Reader()
        reader.feed(packed if isinstance(packed, bytes) else b"".join(packed))
        commands = list(iter(reader.gets, False))
        self._note("→", *commands)
        self._commands.send(commands)

    async def read_response(self, disconnect_on_error: bool = True) -> Reply:
        try:
            while not (self._replies or self._is_ended):
                self._waiter = self._network.loop.create_future()
                await self._waiter
        except BaseException:
            if disconnect_on_error:
                await self.disconnect()
            raise
        if not self._replies:
            await self.disconnect()
            raise ClosedError("connection closed by the server")
        reply = self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def disconnect(self, nowait: bool = False) -> None:
        if self.is_connected:
            self.is_connected = False
            self._is_ended = True
            self._wake()
            self._commands.send([_END])  # after what was sent before

    def _deliver(self, commands: Sequence[Any]) -> None:
        for command in commands:
            if command is _END:
                self._server.close(self._session)
            else:
                self._server.receive(self._session, command)

    def _reply(self, reply: Reply) -> None:
        """Send a reply, together with others that the server gives at the same time."""
        if not self._outgoing:
            self._network.loop.call_soon(self._send_replies)
        self._outgoing.append(reply)

    def _send_replies(self) -> None:
        replies, self._outgoing = self._outgoing, []
        self._answers.send(replies)

    def _arrive(self, replies: Sequence[Reply]) -> None:
        if not self._is_ended:
            self._note("←", *replies)
            self._is_ended = replies[-1] is _END
            self._replies.extend(replies[:-1] if self._is_ended else replies)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _note(self, direction: str, *values: Any) -> None:
        journal = self._network.journal
        if journal.trace is not None:
            text = "; ".join(map(_text, values))
            journal.note(self._network.loop.time(), f"{self._session.name} {direction} {self._server.name}: {text}")


class Connector:
    """Opens the pools of one worker, on `host`."""

    def __init__(self, network: Network, host: str) -> None:
        self._network = network
        self._host = host
        self._numbers = itertools.count(1)

    def to(self, server: Server, on_connect: PipelineWork[None] | None = None) -> ServerConnections:
        """Return a pool of connections to `server`."""

        def make() -> AbstractConnection:
            connection = SimulatedConnection(self._network, self._host, server, next(self._numbers))
            return cast(AbstractConnection, connection)

        return ServerConnections(make, server.name, on_connect)


def _text(value: Any) -> str:
    """Return a command or a reply as text. Change IDs are left out, because they differ from run to run."""
    if isinstance(value, list):
        return f"[{' '.join(map(_text, value))}]"
    return value.decode().partition(',"id":')[0] if isinstance(value, bytes) else repr(value)
