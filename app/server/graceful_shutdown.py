"""Runs uvicorn's server processes and stops them without dropping requests.

uvicorn resets connections that are still in the listen queue, and closes connections whose request is on its way. This
server first makes the kernel drop new connections. Then it waits until the listen queue is empty and every open
connection has sent its request.
"""

import asyncio
import contextlib
import functools
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, cast

import uvicorn
import uvicorn.supervisors.multiprocess
from uvicorn.supervisors import Multiprocess

from app.server.http_protocol import HttpProtocol
from app.server.listen_socket import drop_new_connections, is_backlog_empty
from app.web.context import server_state

_POLL_SECONDS: Final = 0.02
# A condition must hold for this number of polls in a row. The last packet of a TCP handshake may still be on its way:
# the client has a connection then, and the listen queue does not show it yet.
_QUIET_POLLS: Final = 5


def serve(config: uvicorn.Config, listening_socket: socket.socket) -> None:
    """Serve on `listening_socket` with `config.workers` processes until a signal stops them.

    Requests on accepted and on queued connections still get their responses. A worker that dies is replaced.
    """
    if config.workers == 1:
        GracefulServer(config).run([listening_socket])
    else:
        # uvicorn 0.54 has no parameter for the class of its workers, and uses it in four places.
        uvicorn.supervisors.multiprocess.Process = _Worker  # type: ignore[misc]
        _Supervisor(config, [listening_socket]).run()


class GracefulServer(uvicorn.Server):
    """uvicorn's server with a graceful shutdown."""

    # Limit for each of the two waits. A client that sends nothing must not delay the shutdown.
    max_seconds_waiting = 1.0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop without dropping requests. uvicorn calls it after a stop signal."""
        listening_sockets = sockets or []
        server_state(self.lifespan.state).is_stopping = True
        for connection in self._connections:
            connection.close_after_response()
        if self.config.workers == 1:  # with several workers, the supervisor does it for the shared socket
            for listening_socket in listening_sockets:
                drop_new_connections(listening_socket)
        await self._wait_until(lambda: all(map(is_backlog_empty, listening_sockets)))
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
                while quiet < _QUIET_POLLS:
                    quiet = quiet + 1 if condition() else 0
                    await asyncio.sleep(_POLL_SECONDS)


class _Worker(uvicorn.supervisors.multiprocess.Process):
    """A worker process that runs GracefulServer.

    uvicorn kills a worker that does not answer its parent within 5 s. On a busy machine, a worker that still imports
    takes longer, so that limit applies only after `max_seconds_starting`.
    """

    max_seconds_starting = 60

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._starts_until = time.monotonic() + self.max_seconds_starting

    def is_alive(self, timeout: float = 5) -> bool:
        """Return True if the process runs and, unless it may still be starting, answers within `timeout` seconds."""
        is_starting = time.monotonic() < self._starts_until
        return self.process.is_alive() if is_starting else super().is_alive(timeout)

    def wait_until_ready(self, timeout: float, should_exit: threading.Event | None = None) -> bool:
        """Return True once the worker serves, False if it ended, if the parent stops, or after the time limit."""
        return super().wait_until_ready(max(timeout, self.max_seconds_starting), should_exit)

    @functools.cached_property
    def server(self) -> GracefulServer:
        """The server of this process."""
        return GracefulServer(self.config)


class _Supervisor(Multiprocess):
    """Parent process that shuts all workers down gracefully, and kills those that hang.

    On SIGHUP, workers are replaced one by one. The others accept what is in the listen queue.
    """

    # From the signal until workers are killed. A graceful shutdown takes less: twice `max_seconds_waiting`, then
    # `timeout_graceful_shutdown`.
    max_seconds_stopping = 9

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop_signal, self._request_stop)
        signal.signal(signal.SIGALRM, self._kill_all)

    def terminate_all(self) -> None:
        """Drop new connections and stop all workers. The last worker to close its copy closes the socket."""
        for listening_socket in self.sockets:
            drop_new_connections(listening_socket)
        super().terminate_all()
        for listening_socket in self.sockets:
            listening_socket.close()

    def _request_stop(self, stop_signal: int, _frame: object) -> None:
        """Queue the signal and start the timer. uvicorn may first wait 5 s for a worker that hangs."""
        self.signal_queue.append(stop_signal)
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.alarm(self.max_seconds_stopping)

    def _kill_all(self, _alarm: int, _frame: object) -> None:
        for worker in self.processes:
            worker.process.kill()
