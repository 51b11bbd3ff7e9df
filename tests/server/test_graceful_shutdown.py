"""Graceful shutdown under load: established connections are answered, and all processes end in time."""

import contextlib
import multiprocessing
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import uvicorn

from app.server.graceful_shutdown import GracefulServer, _Worker
from tests.conftest import Run
from tests.contract import PATH, Answer, Wire
from tests.processes import ROOT, Service, make_token
from tests.streams import EventStream
from tests.waiting import BUSY, PATIENCE, eventually

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
CLIENTS = 16
AUTH = f"Host: x\r\nAuthorization: Bearer {make_token('stopping')}\r\n"
READ = f"GET {PATH} HTTP/1.1\r\n{AUTH}\r\n".encode()
BODY = b'{"enabled": true}'
WRITE = f"POST {PATH} HTTP/1.1\r\n{AUTH}Content-Type: application/json\r\nContent-Length: 17\r\n\r\n".encode() + BODY


class Clients:
    """Concurrent clients. Each opens a connection per request until the service refuses connections."""

    def __init__(self, port: int, pool: ThreadPoolExecutor) -> None:
        self._port = port
        self.answered = 0
        self.lost: list[str] = []
        self._clients = [pool.submit(self._send_until_refused, number) for number in range(CLIENTS)]

    def have_finished(self) -> bool:
        """Return True if every client has finished."""
        return all(client.done() for client in self._clients)

    def check(self) -> None:
        """Check that every request was answered."""
        for client in self._clients:
            client.result()
        assert self.lost == []

    def _send_until_refused(self, number: int) -> None:
        request = (READ, WRITE)[number % 2]
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            except (ConnectionRefusedError, TimeoutError):
                return
            with connection:
                try:
                    connection.sendall(request)
                    answer = connection.recv(65536)
                except OSError as error:
                    answer = repr(error).encode()
            if answer.startswith(b"HTTP/1.1 200 ") or (number % 2 and answer.startswith(b"HTTP/1.1 409 ")):
                self.answered += 1
            else:
                self.lost.append(answer.decode())


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextlib.contextmanager
def running(log: Path, redis_url: str, workers: str) -> Iterator[Service]:
    """Run a service and wait until each of its workers serves requests."""
    with Service(log, redis_url, WEB_CONCURRENCY=workers) as service:
        assert service.has_started(int(workers))
        yield service
    assert "Traceback" not in service.log


@WORKERS
def test_shutdown_loses_no_request_of_established_connections(tmp_path: Path, redis_url: str, workers: str) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool, running(tmp_path / "log", redis_url, workers) as service:
        clients = Clients(service.port, pool)
        assert eventually(lambda: clients.answered > 300)
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 5 + BUSY
        assert eventually(clients.have_finished)
        clients.check()


def test_sighup_replaces_workers_without_losing_requests(tmp_path: Path, redis_url: str) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool, running(tmp_path / "log", redis_url, "2") as service:
        old = service.workers
        clients = Clients(service.port, pool)
        os.kill(service.pid, signal.SIGHUP)
        assert eventually(lambda: not any(map(is_alive, old)))
        assert not clients.have_finished()
        answered = clients.answered
        assert eventually(lambda: clients.answered > answered + 100)
        service.stop()
        assert eventually(clients.have_finished)
        clients.check()


@pytest.mark.parametrize(
    ("request_bytes", "ahead", "status"),
    [(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 1, 503), (READ, 1, 200), (READ, 10, 200)],
)
def test_open_connections_are_answered_during_shutdown_and_readiness_fails(
    tmp_path: Path, redis_url: str, request_bytes: bytes, ahead: int, status: int
) -> None:
    with (
        running(tmp_path / "log", redis_url, "1") as service,
        Wire("127.0.0.1", service.port) as wire,
        Wire("127.0.0.1", service.port) as idle,
        ThreadPoolExecutor(1) as pool,
    ):
        stopped = pool.submit(service.stop)
        answers_until_shutdown(wire, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.send(request_bytes * ahead)
        answers = [idle.answer("GET") for _ in range(ahead)]
        assert [answer.status for answer in answers] == [status] * ahead
        assert [answer.headers.get("connection") for answer in answers] == [None] * (ahead - 1) + ["close"]
        assert idle.read() == b""
        stopped.result()


def answers_until_shutdown(wire: Wire, request: bytes, ahead: int = 1) -> list[Answer]:
    """Send batches of requests until an answer ends the connection. Return the answers to the last batch."""
    while True:
        wire.send(request * ahead)
        answers = [wire.answer("GET") for _ in range(ahead)]
        if any("connection" in answer.headers for answer in answers):
            return answers


@WORKERS
def test_pipelined_requests_are_answered_during_shutdown(tmp_path: Path, redis_url: str, workers: str) -> None:
    with (
        running(tmp_path / "log", redis_url, workers) as service,
        Wire("127.0.0.1", service.port) as wire,
        ThreadPoolExecutor(1) as pool,
    ):
        stopped = pool.submit(service.stop)
        answers = answers_until_shutdown(wire, READ, ahead=10)
        assert [answer.status for answer in answers] == [200] * 10
        assert [answer.headers.get("connection") for answer in answers] == [None] * 9 + ["close"]
        assert wire.read() == b""
        stopped.result()


@WORKERS
def test_new_connections_are_refused_while_shutdown_waits_for_old_ones(
    tmp_path: Path, redis_url: str, workers: str
) -> None:
    with (
        running(tmp_path / "log", redis_url, workers) as service,
        Wire("127.0.0.1", service.port) as wire,
        ThreadPoolExecutor(1) as pool,
    ):
        wire.send(WRITE[:-9])
        service.client(None).get()  # the server has the partial request once it answers a later one
        stopped = pool.submit(service.stop)
        assert eventually(lambda: is_refused(service.port))
        assert select.select([wire], [], [], 0)[0] == []
        assert wire.answer("POST").status == 500
        stopped.result()


def is_refused(port: int) -> bool:
    """Return True if the port refuses a connection, and False if it accepts or ignores it."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


class LateClient:
    """A connection as the server sees it. It is idle once, and then receives its request."""

    def __init__(self, connections: set[object]) -> None:
        self._connections = connections
        self.idle_checks = 0
        self.was_asked_to_close_first = False

    @property
    def is_idle(self) -> bool:
        self.idle_checks += 1
        return self.idle_checks == 3

    def close_after_response(self) -> None:
        self.was_asked_to_close_first = self.idle_checks == 0

    def shutdown(self) -> None:
        self._connections.discard(self)


def test_shutdown_ignores_a_brief_idle_moment(run: Run) -> None:
    config = uvicorn.Config(lambda: None, lifespan="off", log_config=None)
    config.load()
    server = GracefulServer(config)
    server.lifespan, server.servers = config.lifespan_class(config), []
    connections = cast(set[object], server.server_state.connections)
    client = LateClient(connections)
    connections.add(client)
    run(server.shutdown())
    assert client.idle_checks > 4
    assert client.was_asked_to_close_first


@WORKERS
def test_all_processes_end_within_10_s_despite_open_connections(tmp_path: Path, redis_url: str, workers: str) -> None:
    bundle = b"GET /v0/ui/bundle/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(tmp_path / "log", redis_url, workers) as service, contextlib.ExitStack() as stack:
        serving = service.workers
        stack.enter_context(Wire("127.0.0.1", service.port))
        for sent in (READ[:40], WRITE[:-9], bundle, bundle * 20, READ):
            for _ in range(4):
                wire = stack.enter_context(Wire("127.0.0.1", service.port))
                wire.send(sent)
        wire.answer("GET")
        stream = stack.enter_context(EventStream(service.port, make_token("stopping")))
        assert stream.event()
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 10 + BUSY
        assert not any(map(is_alive, [service.pid, *serving]))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)


def test_shutdown_with_a_hung_worker_ends_within_10_s(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path / "log", redis_url, "2") as service:
        serving = service.workers
        os.kill(serving[0], signal.SIGSTOP)
        time.sleep(1)  # until the parent waits for the answer of the hung worker
        began = time.monotonic()
        try:
            service.stop()
        finally:
            left = [pid for pid in [service.pid, *serving] if is_alive(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() - began < 10 + BUSY
        assert left == []
        assert f"Finished server process [{serving[1]}]" in service.log


def test_worker_that_starts_slowly_is_not_killed(tmp_path: Path, redis_url: str) -> None:
    """Uvicorn gives a worker 5 s to answer, also while it still imports."""
    slow_start = "import sys, time\nif '--multiprocessing-fork' in sys.argv: time.sleep(7)\n"
    (tmp_path / "sitecustomize.py").write_text(slow_start)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    with Service(tmp_path / "log", redis_url, WEB_CONCURRENCY="2", PYTHONPATH=path) as service:
        assert service.client(make_token("slow-start")).get().status == 200
    assert "died" not in service.log


def test_worker_that_is_killed_while_it_is_asked_has_that_reason(caplog: pytest.LogCaptureFixture) -> None:
    class Killed(_Worker):
        def ping(self, timeout: float = 5) -> bool:
            self.process.kill()
            self.process.join()
            return False

    worker = Killed(uvicorn.Config("app.asgi:app"), [])
    worker.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(PATIENCE,))
    worker.process.start()
    worker._started_writer.send(None)
    assert not worker.is_alive()
    assert [vars(record)["cause"] for record in caplog.records] == ["it was ended by SIGKILL"]


def test_killed_worker_is_replaced(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path / "log", redis_url, "2") as service:
        killed, other = service.workers
        os.kill(killed, signal.SIGKILL)
        assert service.has_started(3)
        (new,) = set(service.workers) - {killed, other}
        assert [is_alive(pid) for pid in (killed, other, new)] == [False, True, True]
        assert service.client(make_token("stopping")).get().status == 200
    assert f'event="worker ended" pid={killed} cause="it was ended by SIGKILL"' in service.log


def test_hung_worker_is_replaced_and_the_log_gives_the_reason(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path / "log", redis_url, "2") as service:
        assert service.logs('event="worker started"', 2)
        hung = service.workers[0]
        os.kill(hung, signal.SIGSTOP)
        began = time.monotonic()
        assert service.has_started(3)
        assert time.monotonic() - began < 20 + BUSY
        assert not is_alive(hung)
    assert f'event="worker ended" pid={hung} cause="killed: it did not answer within 5 s"' in service.log


def test_workers_end_after_their_parent_was_killed(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path / "log", redis_url, WEB_CONCURRENCY="2")
    with service, ThreadPoolExecutor(CLIENTS) as pool:
        assert service.has_started(2)
        left = service.workers
        clients = Clients(service.port, pool)
        assert eventually(lambda: clients.answered > 100)
        os.kill(service.pid, signal.SIGKILL)
        assert service.stop() == -signal.SIGKILL
        have_ended = eventually(lambda: not any(map(is_alive, left)))
        for pid in filter(is_alive, left):
            os.kill(pid, signal.SIGKILL)
        assert have_ended
        assert eventually(clients.have_finished)
        clients.check()
        service.start()
        assert service.client(make_token("stopping")).get().status == 200
    assert 'event="parent process ended"' in service.log


def test_worker_added_by_sigttin_stops_gracefully(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path / "log", redis_url, "2") as service, contextlib.ExitStack() as stack:
        os.kill(service.pid, signal.SIGTTIN)
        assert service.has_started(3)
        wire, idle = [connection_accepted_by(service.workers[-1], service.port, stack) for _ in range(2)]
        stopped = stack.enter_context(ThreadPoolExecutor(1)).submit(service.stop)
        answers_until_shutdown(wire, READ)
        idle.send(READ)
        assert idle.answer("GET").status == 200
        stopped.result()
        assert not any(map(is_alive, service.workers))


def connection_accepted_by(pid: int, port: int, stack: contextlib.ExitStack) -> Wire:
    """Return a connection that the worker with this process ID has accepted. Others stay open in `stack`."""
    while True:
        before = sockets_of(pid)
        wire = stack.enter_context(Wire("127.0.0.1", port))
        wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer("GET").status == 200
        if sockets_of(pid) > before:
            return wire


def sockets_of(pid: int) -> int:
    return sum(file.readlink().name.startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())
