"""The end of a connection: the last answers, and the cost of clients that do not read."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.types import Receive, Scope, Send

from app.server.lingering_close import LingeringTransport
from tests.conftest import Run
from tests.contract import PATH, Client, Wire, check
from tests.processes import Service, make_token
from tests.server_thread import serving
from tests.waiting import PATIENCE, eventually

GET = b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n\r\n"
HEAD = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\nContent-Type: application/json\r\n"
BODY = b'{"enabled": true}'
LIMITS = {"max_seconds_unread": PATIENCE, "max_seconds_lingering": PATIENCE}
WRITE = HEAD + b"Content-Length: 17\r\n\r\n" + BODY


async def large(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with the number of bytes in the path."""
    body = b"x" * int(scope["path"][1:])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def short_limits_address() -> Iterator[tuple[str, int]]:
    """The address of a server with short time limits and small send buffers."""
    with serving(large, limits={"max_seconds_unread": 0.6}, send_buffer=65536, keep_alive=2) as running:
        yield running.address


class Recorder(asyncio.Transport):
    """A transport that records each write. It is closing after `abort`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self._is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def write_eof(self) -> None:
        self.writes.append(b"EOF")

    def abort(self) -> None:
        self._is_aborted = True

    def is_closing(self) -> bool:
        return self._is_aborted

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("finish", "sent"),
    [
        (lambda _: None, [b"head, body", b"more"]),
        (LingeringTransport.close, [b"head, body", b"more", b"EOF"]),
        (LingeringTransport.abort, [b"head, body"]),
    ],
    ids=["open", "close", "abort"],
)
def test_writes_of_one_iteration_are_sent_together(
    run: Run, finish: Callable[[LingeringTransport], None], sent: list[bytes]
) -> None:
    async def write() -> list[bytes]:
        recorder = Recorder()
        transport = LingeringTransport(recorder, asyncio.get_running_loop(), **LIMITS)
        transport.write(b"head, ")
        transport.write(b"body")
        assert recorder.writes == []
        await asyncio.sleep(0)
        transport.write(b"more")
        finish(transport)
        await asyncio.sleep(0)
        return recorder.writes

    assert run(write()) == sent


def test_large_writes_are_sent_at_once(run: Run) -> None:
    """Without a pause, an application could otherwise write more than fits into the memory."""

    async def write() -> list[bytes]:
        recorder = Recorder()
        transport = LingeringTransport(recorder, asyncio.get_running_loop(), **LIMITS)
        for _ in range(5):
            transport.write(b"x" * 30_000)
        assert list(map(len, recorder.writes)) == [90_000]
        await asyncio.sleep(0)
        return recorder.writes

    assert list(map(len, run(write()))) == [90_000, 60_000]


@pytest.mark.parametrize("size", [40_000, 90_000, 1_000_000])
@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("half_closes", [False, True])
def test_unread_answer_is_cut_off_by_a_reset(
    short_limits_address: tuple[str, int], size: int, header: bytes, half_closes: bool
) -> None:
    """The kernel buffers the whole answer if it fits into the send buffer."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(short_limits_address)
        connection.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n%s\r\n" % (size, header))
        if half_closes:
            connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1)
        assert eventually(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def test_slow_reader_receives_the_whole_answer(short_limits_address: tuple[str, int]) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.settimeout(PATIENCE)
        connection.connect(short_limits_address)
        for _ in range(10):
            connection.sendall(b"GET /30000 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.1)
            received = 0
            while received < 30_000:
                data = connection.recv(4096)
                assert data
                received += len(data)


def test_idle_connection_is_closed_after_the_keep_alive_time(short_limits_address: tuple[str, int]) -> None:
    with Wire(*short_limits_address) as wire:
        for _ in range(2):
            began = time.monotonic()
            wire.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wire.answer("GET").content == b"x"
        assert wire.read() == b""
        assert time.monotonic() - began > 1.5


def test_keep_alive_time_is_exact_next_to_longer_limits() -> None:
    with (
        serving(large, limits={"max_seconds_head": 600, "max_seconds_unread": 600}, keep_alive=1) as running,
        Wire(*running.address) as wire,
    ):
        wire.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer("GET").content == b"x"
        assert wire.read() == b""


@pytest.mark.parametrize("pause", [0, 0.001, 0.003, 0.007])
@pytest.mark.parametrize("behind", [b"x" * 100, GET, b"x" * 500_000])
@pytest.mark.parametrize("broken", [b"zz\r\n", b"1\r\nx\r\nzz\r\n"])
def test_requests_before_a_malformed_one_get_complete_answers(
    service: Service, pause: float, behind: bytes, broken: bytes
) -> None:
    """A reset after the answers would destroy them. The fixture checks that the log has no traceback."""
    auth = f"Authorization: Bearer {make_token('malformed')}".encode()
    for _ in range(3):
        with Wire("127.0.0.1", service.port) as wire:
            wire.send((GET * 3 + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + broken).replace(b"%AUTH%", auth))
            time.sleep(pause)
            wire.send(behind)
            for _ in range(3):
                assert check("GET", PATH, wire.answer("GET")).status == 200
            answer = check("POST", PATH, wire.answer("POST"))
            assert (answer.status, answer.headers["connection"]) == (400, "close")
            assert wire.read() == b""


def test_rejected_request_behind_others_is_logged(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}".encode()
    bad = f"GET /refused HTTP/1.1\r\nX-Request-ID: behind-{tenant}\r\nHost: a/b\r\n\r\n".encode()
    with Wire("127.0.0.1", service.port) as wire:
        wire.send(GET.replace(b"%AUTH%", auth) + bad)
        assert [wire.answer("GET").status for _ in range(2)] == [200, 400]
    assert service.logs(f"request_id=behind-{tenant} method=GET route=unmatched path=/refused status=400")


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
def test_nothing_behind_the_last_request_is_executed(client: Client, last: bytes) -> None:
    first = HEAD + last + b"Content-Length: 17\r\n\r\n" + BODY
    second = WRITE.replace(b"true}", b"false}").replace(b": 17", b": 18")
    (answer,) = client.raw(first + second)
    assert (answer.status, answer.json, answer.headers["connection"]) == (200, {"enabled": True}, "close")
    assert client.enabled()


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Content-Length: 60000000\r\n\r\n",  # rejected before its body: no token
        WRITE + b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4000000\r\n",
    ],
)
def test_server_reads_little_behind_its_last_answer(service: Service, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(head.replace(b"%AUTH%", b"X: y"))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 60_000_000:
                sent += connection.send(b"x" * 100_000)
    assert sent < 30_000_000  # most of it is in the system's buffers


def test_body_that_is_too_large_is_refused_and_ends_the_connection(service: Service) -> None:
    auth = f"Authorization: Bearer {make_token('large')}".encode()
    with Wire("127.0.0.1", service.port) as wire:
        wire.send((HEAD + b"Content-Length: 2000000\r\n\r\n").replace(b"%AUTH%", auth) + b"x" * 500_000)
        answer = check("POST", PATH, wire.answer("POST"))
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert wire.read() == b""


def test_connection_is_used_again_behind_a_small_unread_body(service: Service) -> None:
    with Wire("127.0.0.1", service.port) as wire:
        for _ in range(3):
            wire.send(WRITE[:-9].replace(b"%AUTH%", b"X: y"))
            assert wire.answer("POST").status == 401
            wire.send(WRITE[-9:])
