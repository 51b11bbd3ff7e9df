"""Requests that the HTTP server itself answers, over a socket."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from app.server.framing import MAX_HEAD_BYTES
from app.server.request_parsing import MAX_HEADERS
from tests.contract import CONTRACT_FILE, PATH, Client, Wire, check
from tests.processes import Service, make_token
from tests.server_thread import ServerThread, serving
from tests.waiting import PATIENCE, eventually

GET = b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n"
GOOD = b'{"enabled": true}'
POST = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\r\n\r\n", b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / FTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)  # fmt: skip
def test_invalid_http_is_a_400_per_the_contract(client: Client, request_bytes: bytes) -> None:
    assert client.raw(request_bytes, path="")[0].status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"X: y\r\n" * (MAX_HEAD_BYTES // 6) + b"\r\n",
        b"X:\r\n" * (MAX_HEAD_BYTES // 4) + b"\r\n",
        b"X:\r\n" * MAX_HEADERS + b"\r\n",
        b"X:\r\n" * MAX_HEADERS,
        b"x" * MAX_HEAD_BYTES + b": y\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_is_a_431(client: Client, head: bytes) -> None:
    assert client.raw(GET + head)[0].status == 431


def test_as_many_headers_as_allowed_are_accepted(client: Client) -> None:
    assert client.raw(GET + b"X:\r\n" * (MAX_HEADERS - 2) + b"\r\n")[0].status == 200


def test_a_request_line_that_is_too_long_is_a_431(client: Client) -> None:
    assert client.raw(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", path="")[0].status == 431


def megabytes_accepted(service: Service, beginning: bytes) -> int:
    """Return the number of megabytes, up to 60, that the server accepts after `beginning`."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(beginning)
        for accepted in range(60):
            try:
                connection.sendall(b"x" * 1_000_000)
            except OSError:
                return accepted
    return 60


def answer_until_close(service: Service, request: bytes) -> tuple[bytes, bytes]:
    """Send a request, and return the head and the body of the answer up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return head.lower(), body


def test_event_stream_of_an_http_1_0_client_has_no_chunks(service: Service, tenant: str) -> None:
    """The token expires soon, so that the server ends the stream and with it the connection."""
    token = make_token(tenant, exp=int(time.time()) + 3).encode()
    request = b"GET " + PATH.encode() + b"/events HTTP/1.0\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert re.fullmatch(rb"retry: 1000\n\nid: 0\nevent: change\ndata: \{.+\}\n\n(:\n\n)*", body)


def test_event_stream_of_an_http_1_0_client_ends_with_a_half_close(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}".encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE / 4) as connection:
        connection.sendall(b"GET " + PATH.encode() + b"/events HTTP/1.0\r\n" + auth + b"\r\n\r\n")
        received = b""
        while b"event: change" not in received:
            received += connection.recv(65536)
        connection.shutdown(socket.SHUT_WR)
        assert eventually(lambda: connection.recv(65536) == b"")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_http_1_0_client_gets_a_body_with_its_length(service: Service, method: bytes) -> None:
    head, body = answer_until_close(service, method + b" /openapi.yaml HTTP/1.0\r\n\r\n")
    assert b"connection: close" in head
    if method == b"OPTIONS":
        assert head.startswith(b"http/1.1 204 ")
    else:
        assert f"content-length: {CONTRACT_FILE.stat().st_size}".encode() in head
    assert body == (CONTRACT_FILE.read_bytes() if method == b"GET" else b"")


@pytest.mark.parametrize(
    ("version", "line"), [(b"1.0", b"HTTP/1.1 200 OK\r\n"), (b"1.1", b"HTTP/1.1 100 Continue\r\n")]
)
def test_expect_is_ignored_in_http_1_0(service: Service, tenant: str, version: bytes, line: bytes) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}".encode()
    head = (
        POST.replace(b"%AUTH%", auth).replace(b"1.1", version) + b"Expect: 100-continue\r\nContent-Length: 17\r\n\r\n"
    )
    with Wire("127.0.0.1", service.port) as wire:
        wire.send(head)
        if version == b"1.0":
            wire.send(GOOD)
        assert wire.readline() == line


def test_a_head_of_60_mb_is_refused_long_before_its_end(service: Service) -> None:
    assert megabytes_accepted(service, b"GET / HTTP/1.1\r\nX: ") < 30


@pytest.mark.parametrize("part", [b"0\r\nX: ", b"0\r\n" + b"X: y\r\n" * 3000 + b"X: "])
def test_endless_trailers_are_refused(service: Service, part: bytes) -> None:
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + GOOD + b"\r\n" + part
    token = make_token("trailers").encode()
    assert megabytes_accepted(service, request.replace(b"%AUTH%", b"Authorization: Bearer " + token)) < 30


def test_head_just_within_its_limit_is_accepted(client: Client) -> None:
    assert client.raw(GET + b"X: " + b"x" * (MAX_HEAD_BYTES - 1000) + b"\r\n\r\n")[0].status == 200


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    write = POST + b"Content-Length: 17\r\n\r\n" + GOOD
    answers = client.raw((write + GET + b"\r\n") * 100, answers=200)
    assert [answer.json for answer in answers] == [{"enabled": True}] * 200


def test_garbage_behind_a_request_does_not_replace_its_answer(client: Client) -> None:
    (answer,) = client.raw(POST + b"Content-Length: 17\r\n\r\n" + GOOD + b"\x00 nonsense\r\n\r\n")
    assert (answer.status, answer.json) == (200, {"enabled": True})
    assert client.enabled()


@pytest.mark.parametrize(
    "rest",
    [b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"POST /x HTTP/1.1\r\nHost: x\r\nX"],
)
def test_write_is_answered_despite_malformed_data_behind_it(client: Client, rest: bytes) -> None:
    write = POST + b"Content-Length: 17\r\n\r\n" + GOOD
    answers = client.raw(write + GET + b"\r\n" + rest, answers=2)
    assert [answer.json for answer in answers] == [{"enabled": True}] * 2


def test_disconnect_with_pipelined_requests_is_no_error(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}\r\nX-Request-ID: ahead-{tenant}".encode()
    write = (POST + b"Content-Length: 17\r\n\r\n" + GOOD).replace(b"%AUTH%", auth)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(write * 20)
    assert service.logs(f"request_id=ahead-{tenant}")


def test_half_closed_connection_gets_its_answer(short_limits_address: tuple[str, int]) -> None:
    """The answer is late, because an answer before the half-close could not say that the connection ends."""
    with socket.create_connection(short_limits_address, timeout=PATIENCE) as connection:
        connection.sendall(WHOLE.replace(b"GET /", b"GET /late"))
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"x"])
def test_requested_upgrade_is_ignored(service: Service, client: Client, protocol: bytes) -> None:
    """Java's HttpClient requests an upgrade by default, also with a length of 0. So does curl with --http2."""
    upgrade = UPGRADE % protocol
    write = POST + upgrade + b"Content-Length: 17\r\n\r\n" + GOOD
    chunked = POST + upgrade + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + GOOD + b"\r\n0\r\n\r\n"
    read = GET + upgrade + b"Content-Length: 0\r\n\r\n"
    answers = client.raw(read + write + chunked + GET + upgrade + b"\r\n" + read, answers=5)
    assert [answer.json["enabled"] for answer in answers] == [False, True, True, True, True]
    assert "WebSocket" not in service.log


def test_an_upgrade_that_arrives_byte_by_byte_is_ignored(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}".encode()
    request = (POST + UPGRADE % b"h2c" + b"Content-Length: 17\r\n\r\n" + GOOD).replace(b"%AUTH%", auth)
    with Wire("127.0.0.1", service.port) as wire:
        for byte in request:
            wire.send(bytes([byte]))
        assert wire.answer("POST").json == {"enabled": True}


@pytest.mark.parametrize("method", [b"CONNECT"])
def test_no_tunnel_is_opened(client: Client, method: bytes) -> None:
    (answer,) = client.raw(method + b" example.net:443 HTTP/1.1\r\nHost: example.net\r\n\r\n", path="")
    assert answer.status in {400, 404, 405}


@pytest.mark.parametrize("hosts", [b"", b"Host: x\r\nHost: x\r\n", b"Host: x\r\nHost: y\r\n"])
def test_request_without_exactly_one_host_is_a_400(client: Client, hosts: bytes) -> None:
    (answer,) = client.raw(GET.replace(b"Host: x\r\n", hosts) + b"\r\n", malformed=True)
    assert (answer.status, answer.json["message"]) == (400, "Expected one Host header.")


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("request_bytes", "line"),
    [
        (b"nonsense\r\n\r\n", "route=unmatched status=400 duration_ms=0.0"),
        (b"GET /livez?x HTTP/1.1\r\n\r\n", "method=GET route=unmatched path=/livez status=400 duration_ms=0.0"),
        (
            f"PUT /a HTTP/1.1\r\nTraceparent: 00-{TRACE}-{PARENT}-01\r\nX: y\r\nNo colon\r\n\r\n".encode(),
            f"method=PUT route=unmatched path=/a status=400 duration_ms=0.0 trace_id={TRACE} parent_id={PARENT}",
        ),
        (
            b"GET /x HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
            "method=GET route=unmatched path=/x status=431 duration_ms=0.0",
        ),
        (b"GET /x" + b"x" * MAX_HEAD_BYTES, "route=unmatched status=431 duration_ms=0.0"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", "route=unmatched status=400 duration_ms=0.0"),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
def test_rejected_request_is_logged_with_the_parts_read(
    service: Service, before: int, request_bytes: bytes, line: str
) -> None:
    with Wire("127.0.0.1", service.port) as wire:
        wire.send(b"GET /before HTTP/1.1\r\nHost: x\r\n\r\n" * before)
        if before:
            wire.answer("GET")
        wire.send(request_bytes)
        request_id = wire.answer("GET").headers["x-request-id"]
    assert service.logs(f"event=request request_id={request_id} ")
    (found,) = [each for each in service.log.splitlines() if request_id in each]
    assert found.partition(f"event=request request_id={request_id} ")[2] == line


def test_rejected_request_keeps_its_request_id(service: Service, tenant: str) -> None:
    head = f"GET / HTTP/1.1\r\nX-Request-ID: own-{tenant}\r\n\r\n".encode()
    (answer,) = service.client(None).raw(head, malformed=True)
    assert (answer.status, answer.headers["x-request-id"]) == (400, f"own-{tenant}")


BROKEN = b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n"


@pytest.mark.parametrize("parts", [[POST + BROKEN], [POST + BROKEN[:-4], BROKEN[-4:]]])
def test_malformed_body_has_one_answer_and_one_log_line(service: Service, tenant: str, parts: list[bytes]) -> None:
    with Wire("127.0.0.1", service.port) as wire:
        for part in parts:
            wire.send(part.replace(b"%AUTH%", f"Authorization: Bearer {make_token(tenant)}".encode()))
            service.client(None).get()  # the server has this part once it answers a later request
        answer = check("POST", PATH, wire.answer("POST"))
        assert wire.read() == b""
    request_id = answer.headers["x-request-id"]
    assert answer.status == 400
    assert service.logs(f"request_id={request_id} method=POST route={PATH} path={PATH} status=400")
    assert service.log.count(request_id) == service.log.count(f"tenant={tenant}") == 1


@pytest.mark.parametrize("parts", [[POST + BROKEN], [POST + BROKEN[:-4], BROKEN[-4:]]])
def test_malformed_body_behind_an_answer_gets_no_second_answer(service: Service, parts: list[bytes]) -> None:
    with Wire("127.0.0.1", service.port) as wire:
        wire.send(parts[0].replace(b"%AUTH%", b"X: y"))
        answer = wire.answer("POST")
        for part in parts[1:]:
            wire.send(part)
        assert wire.read() == b""
    request_id = check("POST", PATH, answer).headers["x-request-id"]
    assert answer.status == 401
    assert service.logs(f"request_id={request_id} method=POST route={PATH} path={PATH} status=401")


def test_an_upgrade_without_a_token_is_a_401(service: Service) -> None:
    head = b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert service.client(None).raw(head)[0].status == 401


@pytest.mark.parametrize(
    "host",
    [b"", b"a b", b"[::", b"x" * 5000, b"\xff\xfe", b"a:b:c", b"a:99999999", b"..", b"<>", b"xn--\xc3\xa4", b"%00"],
)
def test_unusual_host_is_a_200_or_a_400(client: Client, host: bytes) -> None:
    assert client.raw(GET.replace(b"Host: x", b"Host: " + host) + b"\r\n", malformed=True)[0].status in {200, 400}


def test_http_1_0_is_answered_without_a_host(client: Client) -> None:
    (answer,) = client.raw(b"GET " + PATH.encode() + b" HTTP/1.0\r\n%AUTH%\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("target", [b"*", b"http://other.example" + PATH.encode(), b"//x" + PATH.encode()])
def test_a_target_in_another_form_is_answered_or_refused(client: Client, target: bytes) -> None:
    (answer,) = client.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n\r\n", path="")
    assert answer.status in {200, 400, 404}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://a.example", 307),
        (b"GET http://a.example:80?x=1", 307),
        (b"GET http://a.example/livez", 200),
        (b"OPTIONS http://a.example", 204),
        (b"OPTIONS http://a.example/livez", 204),
        (b"DELETE http://a.example", 405),
        (b"GET http://a.example#x", 400),
    ],
)
@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
def test_empty_path_of_an_absolute_target_is_the_start_page(
    client: Client, line: bytes, status: int, upgrade: bytes
) -> None:
    (answer,) = client.raw(line + b" HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n", path="", malformed=status == 400)
    assert answer.status == status


def test_an_idle_connection_is_used_again(service: Service) -> None:
    token = make_token("idle").encode()
    request = GET.replace(b"%AUTH%", b"Authorization: Bearer " + token) + b"\r\n"
    with Wire("127.0.0.1", service.port) as wire:
        for _ in range(3):
            wire.send(request)
            assert wire.answer("GET").status == 200


HEAD_SECONDS, REQUEST_SECONDS, LATE_SECONDS = 1.0, 2.0, 3.0
LIMITS = {"max_seconds_unread": 1.0, "max_seconds_head": HEAD_SECONDS, "max_seconds_request": REQUEST_SECONDS}


async def slow_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body.

    /late answers after a delay, /unread does not read the body, and /large answers with that many bytes.
    """
    length, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    if scope["path"] == "/late":
        await asyncio.sleep(LATE_SECONDS)
    body = b"%d" % length if scope["path"] != "/large" else b"x" * int(scope["query_string"])
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def short_limits_server() -> Iterator[ServerThread]:
    """A server with short time limits and small buffers."""
    with serving(slow_echo, limits=LIMITS, send_buffer=16384) as running:
        yield running


@pytest.fixture
def short_limits_address(short_limits_server: ServerThread) -> tuple[str, int]:
    return short_limits_server.address


def exchange_until_closed(address: tuple[str, int], *parts: bytes, drip: bytes = b"") -> tuple[bytes, float]:
    """Send `parts`, then `drip` every 50 ms. Return the received bytes and the seconds until the connection ends."""
    received = b""
    began = time.monotonic()
    with socket.create_connection(address, timeout=0.05) as connection:
        for part in parts:
            connection.sendall(part)
        while time.monotonic() - began < PATIENCE:
            try:
                if not (data := connection.recv(65536)):
                    break
                received += data
            except TimeoutError:
                with contextlib.suppress(OSError):
                    connection.sendall(drip)
            except ConnectionResetError:
                break
        return received, time.monotonic() - began


LENGTH = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "drip", "limit"),
    [
        (b"", b"\r\n", HEAD_SECONDS), (b"GET / HT", b"", HEAD_SECONDS),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n", HEAD_SECONDS), (b"GET / HTTP/1.1\r\nX: ", b"y", HEAD_SECONDS),
        (LENGTH, b"", REQUEST_SECONDS), (LENGTH, b"x", REQUEST_SECONDS),
        (CHUNKED, b"1\r\nx\r\n", REQUEST_SECONDS), (CHUNKED + b"0\r\n", b"X: y\r\n", REQUEST_SECONDS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", WHOLE])
def test_slow_request_is_cut_off(
    short_limits_address: tuple[str, int], before: bytes, sent: bytes, drip: bytes, limit: float
) -> None:
    received, seconds = exchange_until_closed(short_limits_address, before, sent, drip=drip)
    assert received.count(b"HTTP/1.1 200") == (1 if before else 0)
    assert 0.9 * limit < seconds < PATIENCE


def test_connection_without_a_request_is_cut_off(short_limits_address: tuple[str, int]) -> None:
    received, seconds = exchange_until_closed(short_limits_address)
    assert received == b""
    assert 0.9 * HEAD_SECONDS < seconds < PATIENCE


def test_endless_body_behind_its_answer_is_cut_off(short_limits_address: tuple[str, int]) -> None:
    received, seconds = exchange_until_closed(
        short_limits_address, LENGTH.replace(b"POST /", b"POST /unread"), drip=b"x"
    )
    assert received.startswith(b"HTTP/1.1 200")
    assert HEAD_SECONDS < seconds < PATIENCE


@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\nX: ", LENGTH, WHOLE + b"GET / HT", WHOLE + LENGTH + b"x"])
def test_slow_answer_is_sent_despite_data_behind_its_request(
    short_limits_address: tuple[str, int], behind: bytes
) -> None:
    with socket.create_connection(short_limits_address, timeout=PATIENCE) as connection:
        connection.sendall(WHOLE.replace(b"GET /", b"GET /late") + behind)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_pipelined_flood_is_cut_off_and_other_clients_are_served(short_limits_address: tuple[str, int]) -> None:
    with Wire(*short_limits_address) as wire, pytest.raises(OSError, match=r"reset|Broken pipe"):
        wire.send(WHOLE * 2_000_000)
    with Wire(*short_limits_address) as wire:
        wire.send(WHOLE)
        assert wire.answer("GET").content == b"0"


def test_slow_requests_within_the_limits_are_answered(short_limits_address: tuple[str, int]) -> None:
    with Wire(*short_limits_address) as wire:
        for _ in range(8):
            wire.send(b"POST / HTTP/1.1\r\nHost: x\r\n")
            time.sleep(0.1)
            wire.send(b"Content-Length: 2\r\n\r\nx")
            time.sleep(0.1)
            wire.send(b"x")
            assert wire.answer("POST").content == b"2"


def test_client_that_leaves_its_last_answer_unread_is_cut_off(
    short_limits_server: ServerThread,
) -> None:
    """The unread rest has many sizes, because only the system knows how much it buffers."""
    connections = short_limits_server.server.server_state.connections
    with contextlib.ExitStack() as stack:
        for size in range(10_000, 600_000, 20_000):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            connection.connect(short_limits_server.address)
            connection.sendall(b"GET /large?%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
            assert connection.recv(1)
        assert eventually(lambda: not connections)
