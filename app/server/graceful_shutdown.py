"""Runs uvicorn's server processes and stops them without dropping requests.

uvicorn resets connections that are still in the listen queue, and closes connections whose request is on its way. This
server first makes the kernel drop new connections. Then it waits until the listen queue is empty and every open
connection has sent its request.
"""

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, cast

import uvicorn
import uvicorn.supervisors.multiprocess
from uvicorn.supervisors import Multiprocess

from app.server import STARTUP_FAILURE
from app.server.http_protocol import HttpProtocol
from app.server.listen_socket import drop_new_connections, is_backlog_empty
from app.web.context import server_state

_POLL_SECONDS: Final = 0.02
# A condition must hold for this number of polls in a row. The last packet of a TCP handshake may still be on its way:
# the client has a connection then, and the listen queue does not show it yet.
_QUIET_POLLS: Final = 5

_log = logging.getLogger(__name__)


def serve(config: uvicorn.Config, listening_socket: socket.socket) -> None:
    """Serve on `listening_socket` with `config.workers` processes until a signal stops them.

    Requests on accepted and on queued connections still get their responses. A worker that dies is replaced, unless it
    cannot start: then this process exits with a status other than 0.
    """
    if config.workers == 1:
        GracefulServer(config).run([listening_socket])
    else:
        # uvicorn 0.54 has no parameter for the class of its workers, and uses it in four places.
        uvicorn.supervisors.multiprocess.Process = _Worker  # type: ignore[misc]
        supervisor = _Supervisor(config, [listening_socket])
        supervisor.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            sys.exit(STARTUP_FAILURE)


class GracefulServer(uvicorn.Server):
    """uvicorn's server with a graceful shutdown. It calls `on_start` once it serves."""

    # Limit for each of the two waits. A client that sends nothing must not delay the shutdown.
    max_seconds_waiting = 1.0

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and accept connections. Exits if the application cannot start."""
        await super().startup(sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Return True if the server must stop: after a signal, or if the parent process has ended."""
        if _is_orphan() and not self.should_exit:
            _log.error("parent process ended")
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop without dropping requests. uvicorn calls it when the server must stop."""
        listening_sockets = sockets or []
        server_state(self.lifespan.state).is_stopping = True
        for connection in self._connections:
            connection.close_after_response()
        if self.config.workers == 1 or _is_orphan():  # else the supervisor does it for the socket that workers share
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


def _is_orphan() -> bool:
    """Return True if this is a worker whose parent process has ended."""
    parent = multiprocessing.parent_process()
    return parent is not None and parent.pid != os.getppid()


class _Worker(uvicorn.supervisors.multiprocess.Process):
    """A worker process that runs GracefulServer.

    uvicorn kills a worker that does not answer its parent within 5 s. A worker that still imports may take longer, for
    example under a CPU limit. So that limit applies only once the worker serves.
    """

    # A worker that needs more hangs. With 5 % of a processor and no byte code, four workers needed 4 minutes.
    max_seconds_starting = 600

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._began = time.monotonic()
        # Readable once the worker serves. A `multiprocessing.Event` would need /dev/shm, and a worker that is killed at
        # the wrong moment would leave it locked.
        self._started, self._started_writer = multiprocessing.Pipe(duplex=False)

    def is_alive(self, timeout: float = 5) -> bool:
        """Return True if the process runs, and either answers within `timeout` seconds or may still be starting.

        Otherwise log the reason: the parent process replaces the worker.
        """
        reason = None
        if not self._started.poll():
            if time.monotonic() - self._began > self.max_seconds_starting:
                reason = f"killed: it did not start within {self.max_seconds_starting} s"
        elif self.process.is_alive() and not self.ping(timeout):
            reason = f"killed: it did not answer within {timeout} s"
        if not self.process.is_alive():  # perhaps since the ping
            reason = _end_reason(self.exitcode)
        if reason is not None:
            _log.error("worker ended", extra={"pid": self.pid, "cause": reason})
        return reason is None

    def wait_until_ready(self, timeout: float, should_exit: threading.Event | None = None) -> bool:
        """Return True once the worker serves, and False if it ended, the parent stops, or it may not start longer."""
        while not (should_exit and should_exit.is_set()) and self.is_alive():
            if self._started.poll(_POLL_SECONDS):
                return True
        return False

    def _report_start(self) -> None:
        """Report that this process serves. It runs in the worker."""
        self._started_writer.send(None)
        _log.info("worker started", extra={"pid": os.getpid(), "seconds": round(time.monotonic() - self._began, 1)})

    @functools.cached_property
    def server(self) -> GracefulServer:
        """The server of this process."""
        return GracefulServer(self.config, self._report_start)


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
        for worker in multiprocessing.active_children():  # with a worker that SIGHUP is starting
            worker.kill()


def _end_reason(status: int | None) -> str:
    """Return why a process ended, from its status as `multiprocessing` reports it."""
    if status is None or status >= 0:
        return f"it ended with status {status}"
    return f"it was ended by {signal.Signals(-status).name}"
