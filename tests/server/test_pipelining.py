"""Number and order of the answers on one connection, compared with h11, an independent parser."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import h11
import uvicorn
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.server.http_protocol import HttpProtocol
from app.web.middleware.error_responses import ErrorResponse
from app.web.middleware.request_observers import RequestObservers
from tests.conftest import Run
from tests.waiting import PATIENCE

HEAD = b"%s %s HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Answers:
    """The answers of one connection: `<target> <length of the body>` for each request.

    `ends_with_error` is True if the last answer rejects a request.
    """

    texts: list[bytes]
    ends_with_error: bool


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the target and the length of the body, after the milliseconds in the target."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    await asyncio.sleep(int(scope["raw_path"][1:2]) / 1000 if scope["raw_path"][1:2].isdigit() else 0)
    body = b"%s %d" % (scope["raw_path"], length)
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def expected(sent: bytes) -> Answers:
    """Return the answers that h11 expects for the bytes."""
    server = h11.Connection(h11.SERVER)
    if sent:  # h11 takes empty data for the end of the stream
        server.receive_data(sent)
    texts: list[bytes] = []
    target, length = b"", 0
    try:
        while (event := server.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                target, length = event.target, 0
            elif isinstance(event, h11.Data):
                length += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                texts.append(b"%s %d" % (target, length))
                server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                server.send(h11.EndOfMessage())
                if server.our_state is h11.MUST_CLOSE:
                    return Answers(texts, ends_with_error=False)
                server.start_next_cycle()
    except h11.RemoteProtocolError:
        return Answers(texts, ends_with_error=True)
    return Answers(texts, ends_with_error=False)


def read(received: bytes) -> Answers:
    """Return the answers in the received bytes."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(received)
    client.receive_data(b"")
    texts: list[bytes] = []
    while client.trailing_data[0]:
        client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        response = client.next_event()
        assert isinstance(response, h11.Response)
        body = b""
        while isinstance(event := client.next_event(), h11.Data):
            body += bytes(event.data)
        if response.status_code in {400, 431}:
            assert client.trailing_data[0] == b""
            return Answers(texts, ends_with_error=True)
        texts.append(body)
        if client.our_state is h11.MUST_CLOSE:
            assert client.trailing_data[0] == b""
            break
        client.start_next_cycle()
    return Answers(texts, ends_with_error=False)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    """Run a server in this process, yield its address, and wait until all connections have ended."""
    config = uvicorn.Config(RequestObservers(echo, []), lifespan="off", log_config=None, ws="none")
    config.load()
    loop = asyncio.get_running_loop()
    problems: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    state = ServerState()
    server = await loop.create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()
        while state.connections:  # noqa: ASYNC110 - uvicorn's set has no event
            await asyncio.sleep(0.001)
    assert problems == []


async def pipeline(parts: Sequence[tuple[bytes, float]], *, half_closes: bool) -> bytes:
    """Send each part after its pause in ms. Return everything that the server sends until it closes."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE), serving() as address:
        with socket.socket() as connection:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(connection, address)
            for part, pause in parts:
                await asyncio.sleep(pause / 1000)
                await loop.sock_sendall(connection, part)
            if half_closes:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while data := await loop.sock_recv(connection, 65536):
                received += data
    return received


def chunked(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


TARGETS = st.sampled_from([b"/0", b"/1", b"/3"])
BODIES = st.sampled_from([b"", b"x", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"0\r\n\r\n", b"x" * 5000])
READS = st.builds(lambda target: HEAD % (b"GET", target) + b"\r\n", TARGETS)
WRITES = st.builds(
    lambda target, body: HEAD % (b"POST", target) + b"Content-Length: %d\r\n\r\n" % len(body) + body, TARGETS, BODIES
)
STREAMED = st.builds(
    lambda target, chunks: HEAD % (b"POST", target) + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(chunks),
    TARGETS,
    st.lists(BODIES.filter(bool), max_size=3),
)
LAST = st.just(HEAD % (b"GET", b"/last") + b"Connection: close\r\n\r\n")
REQUESTS = st.lists(st.one_of(READS, READS, WRITES, STREAMED, LAST), max_size=6)
GARBAGE = st.sampled_from(
    [
        b"", b"\x00\x01\x02\r\n\r\n", b"nonsense\r\n\r\n", CHUNKED + b"zz\r\n", CHUNKED + b"1\r\nxyz\r\n",
        CHUNKED + b"1\r\nx\r\nzz\r\n", HEAD % (b"POST", b"/cut") + b"Content-Length: 9\r\n\r\nx", HEAD % (b"GET", b"/"),
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", CHUNKED + b"5;x\r\nGET /",
        HEAD % (b"POST", b"/") + b"Transfer-Encoding: gzip\r\n\r\nx",
    ]
)  # fmt: skip
BEHIND = st.sampled_from([b"", b"x" * 100_000, HEAD % (b"GET", b"/behind") + b"\r\n", b"0\r\n\r\n" * 100])
CUTS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 1, 4])), max_size=8)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(REQUESTS, GARBAGE, BEHIND, CUTS, st.booleans())
def test_each_complete_request_is_answered_once_and_in_order(
    requests: list[bytes], garbage: bytes, behind: bytes, cuts: list[tuple[float, int]], half_closes: bool
) -> None:
    sent = b"".join(requests) + garbage + (behind if garbage else b"")
    expected_answers = expected(sent)
    places = sorted({int(share * len(sent)): pause for share, pause in cuts}.items())
    edges = [(0, 0), *places, (len(sent), 0)]
    parts = [(sent[start:end], pause) for (start, pause), (end, _) in itertools.pairwise(edges) if end > start]
    received = uvloop.run(pipeline(parts, half_closes=half_closes or not expected_answers.ends_with_error))
    assert read(received) == expected_answers


class CountedProtocol(HttpProtocol):
    """Counts how often the server tries to respond instead of the application."""

    attempts = 0

    def _respond_before_application(self, response: ErrorResponse) -> None:
        self.attempts += 1
        super()._respond_before_application(response)


def test_malformed_body_on_a_lost_connection_is_handled_once(run: Run) -> None:
    async def lose() -> int:
        config = uvicorn.Config(RequestObservers(echo, []), lifespan="off", log_config=None, ws="none")
        config.load()
        loop = asyncio.get_running_loop()
        accepted: asyncio.Queue[CountedProtocol] = asyncio.Queue()

        class Accepted(CountedProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
                super().connection_made(transport)
                accepted.put_nowait(self)

        async with (
            await loop.create_server(lambda: Accepted(config, ServerState(), {}), "127.0.0.1", 0) as server,
            asyncio.timeout(PATIENCE),
        ):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            protocol = await accepted.get()
            protocol.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
            protocol.transport.abort()
            for _ in range(100):
                await asyncio.sleep(0)
            writer.close()
            return protocol.attempts

    assert run(lose()) == 1
