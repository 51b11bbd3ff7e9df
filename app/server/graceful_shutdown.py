"""How the processes run and, more to the point, how they end: uvicorn's server, made to drop nobody."""

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Callable
from typing import Final, cast

import uvicorn
import uvicorn.supervisors.multiprocess
from uvicorn.supervisors import Multiprocess

from app.server.http_protocol import HttpProtocol
from app.server.listen_socket import drop_new_connections, is_backlog_empty
from app.web.context import server_state

_TICK: Final = 0.02
# For so many ticks in a row nothing may come: a connection that a client takes for made is not made here for as long
# as its last packet is on the way.
_QUIET_TICKS: Final = 5


def serve(config: uvicorn.Config, listener: socket.socket) -> None:
    """Serves on `listener` with as many processes as `config` says until a signal ends it.

    What was accepted by then, or waits to be, is answered; a process that dies by itself is replaced.
    """
    if config.workers == 1:
        GracefulServer(config).run([listener])
    else:
        # uvicorn (0.54) names its class for a worker in four places, and takes no other from anybody.
        uvicorn.supervisors.multiprocess.Process = _Worker  # type: ignore[misc]
        _Supervisor(config, [listener]).run()


class GracefulServer(uvicorn.Server):
    """uvicorn resets what waits in the backlog, and closes connections whose request is on its way.

    This one first has no connection begin, and then waits for those: for the backlog to be empty, and for each
    connection to have had its request.
    """

    # For each of the two, at the most: a client that has nothing to ask is not waited for any longer.
    max_seconds_waiting = 1.0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called when the server was told to stop."""
        listeners = sockets or []
        server_state(self.lifespan.state).is_stopping = True
        for connection in self._connections:
            connection.close_after_response()
        if self.config.workers == 1:  # else the supervisor does, once for all who share the socket
            for listener in listeners:
                drop_new_connections(listener)
        await self._wait_until(lambda: all(map(is_backlog_empty, listeners)))
        for server in self.servers:
            server.close()
        await self._wait_until(lambda: not any(connection.is_idle for connection in self._connections))
        await super().shutdown(sockets)

    @property
    def _connections(self) -> set[HttpProtocol]:
        return cast(set[HttpProtocol], self.server_state.connections)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        quiet = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.max_seconds_waiting):
                while quiet < _QUIET_TICKS:
                    quiet = quiet + 1 if condition() else 0
                    await asyncio.sleep(_TICK)


class _Worker(uvicorn.supervisors.multiprocess.Process):
    """One process of several."""

    @functools.cached_property
    def server(self) -> GracefulServer:
        """What runs in it."""
        return GracefulServer(self.config)


class _Supervisor(Multiprocess):
    """Ends all workers gently, one that hangs excepted. One that is replaced on SIGHUP leaves the backlog to others."""

    # From the signal on. A worker that does not hang has ended by then: `max_seconds_waiting` twice, then
    # `timeout_graceful_shutdown`.
    max_seconds_stopping = 9

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for told in (signal.SIGINT, signal.SIGTERM):
            signal.signal(told, self._note_stop)
        signal.signal(signal.SIGALRM, self._kill_all)

    def terminate_all(self) -> None:
        """Called when all are to stop. The socket is closed as soon as the last of them has closed it."""
        for listener in self.sockets:
            drop_new_connections(listener)
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def _note_stop(self, told: int, _frame: object) -> None:
        """Begins to count: where a worker hangs, uvicorn may ask it for 5 s whether it lives before it looks here."""
        self.signal_queue.append(told)
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.alarm(self.max_seconds_stopping)

    def _kill_all(self, _alarm: int, _frame: object) -> None:
        for worker in self.processes:
            worker.process.kill()
