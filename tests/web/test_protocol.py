"""What the server itself refuses, seen on a socket."""

import socket

import pytest

from app.web.protocol import MAX_HEAD_BYTES, MAX_WAITING
from tests.contract import PATH, Client, Wire
from tests.processes import Service, make_token

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
def test_what_is_no_http_is_a_400_with_the_contracts_body(client: Client, request_bytes: bytes) -> None:
    assert client.raw(request_bytes, path="")[0].status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"X: y\r\n" * (MAX_HEAD_BYTES // 6) + b"\r\n",
        b"X:\r\n" * (MAX_HEAD_BYTES // 5) + b"\r\n",
        b"x" * MAX_HEAD_BYTES + b": y\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_is_a_431(client: Client, head: bytes) -> None:
    assert client.raw(GET + head)[0].status == 431


def test_a_request_line_that_is_too_long_is_a_431(client: Client) -> None:
    assert client.raw(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", path="")[0].status == 431


def megabytes_taken(service: Service, beginning: bytes) -> int:
    """How many megabytes without an end the server takes behind a beginning, of 60."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(beginning)
        for taken in range(60):
            try:
                connection.sendall(b"x" * 1_000_000)
            except OSError:
                return taken
    return 60


def test_a_head_of_60_mb_is_refused_long_before_its_end(service: Service) -> None:
    assert megabytes_taken(service, b"GET / HTTP/1.1\r\nX: ") < 30


@pytest.mark.parametrize("part", [b"0\r\nX: ", b"0\r\n" + b"X: y\r\n" * 3000 + b"X: "])
def test_trailers_without_end_are_refused(service: Service, part: bytes) -> None:
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + GOOD + b"\r\n" + part
    token = make_token("trailers").encode()
    assert megabytes_taken(service, request.replace(b"%AUTH%", b"Authorization: Bearer " + token)) < 30


def test_a_head_just_within_its_bound_is_taken(client: Client) -> None:
    assert client.raw(GET + b"X: " + b"x" * (MAX_HEAD_BYTES - 1000) + b"\r\n\r\n")[0].status == 200


def test_requests_that_are_sent_ahead_are_answered_in_order(client: Client) -> None:
    write = POST + b"Content-Length: 17\r\n\r\n" + GOOD
    answers = client.raw((write + GET + b"\r\n") * (MAX_WAITING // 2), answers=MAX_WAITING)
    assert [answer.json for answer in answers] == [{"enabled": True}] * MAX_WAITING


def test_a_flood_of_requests_sent_ahead_is_cut_off_and_starves_nobody(service: Service, client: Client) -> None:
    flood = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000_000
    with Wire("127.0.0.1", service.port) as wire, pytest.raises(OSError, match=r"reset|Broken pipe"):
        wire.send(flood)
    assert client.get().status == 200


def test_nonsense_behind_a_request_does_not_take_the_place_of_its_answer(client: Client) -> None:
    (answer,) = client.raw(POST + b"Content-Length: 17\r\n\r\n" + GOOD + b"\x00 nonsense\r\n\r\n")
    assert (answer.status, answer.json) == (200, {"enabled": True})
    assert client.enabled()


@pytest.mark.parametrize(
    "rest",
    [b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"POST /x HTTP/1.1\r\nHost: x\r\nX"],
)
def test_a_write_keeps_its_answer_whatever_is_sent_behind_it(client: Client, rest: bytes) -> None:
    write = POST + b"Content-Length: 17\r\n\r\n" + GOOD
    answers = client.raw(write + GET + b"\r\n" + rest, answers=2)
    assert [answer.json for answer in answers] == [{"enabled": True}] * 2


def test_a_client_that_leaves_with_requests_sent_ahead_is_no_failure(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}\r\nX-Request-ID: ahead-{tenant}".encode()
    write = (POST + b"Content-Length: 17\r\n\r\n" + GOOD).replace(b"%AUTH%", auth)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(write * 20)
    assert service.logs(f"request_id=ahead-{tenant}")


def test_a_client_that_only_listens_gets_its_answer(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}".encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(GET.replace(b"%AUTH%", auth) + b"\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"x"])
def test_an_upgrade_that_is_asked_for_is_ignored(service: Service, client: Client, protocol: bytes) -> None:
    """As Java's HttpClient asks by default, a length of 0 included, and curl with --http2."""
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
def test_a_request_names_one_host(client: Client, hosts: bytes) -> None:
    (answer,) = client.raw(GET.replace(b"Host: x\r\n", hosts) + b"\r\n", malformed=True)
    assert (answer.status, answer.json["message"]) == (400, "Expected one Host header.")


def test_what_the_server_refuses_stands_in_the_log_under_its_id(service: Service, client: Client) -> None:
    request_id = client.raw(b"nonsense\r\n\r\n", path="")[0].headers["x-request-id"]
    assert service.logs(f'event="request refused" request_id={request_id} status=400')


def test_an_upgrade_without_a_token_is_a_401(service: Service) -> None:
    head = b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert service.client(None).raw(head)[0].status == 401


@pytest.mark.parametrize(
    "host",
    [b"", b"a b", b"[::", b"x" * 5000, b"\xff\xfe", b"a:b:c", b"a:99999999", b"..", b"<>", b"xn--\xc3\xa4", b"%00"],
)
def test_whatever_host_is_named_the_request_is_answered_or_refused(client: Client, host: bytes) -> None:
    assert client.raw(GET.replace(b"Host: x", b"Host: " + host) + b"\r\n", malformed=True)[0].status in {200, 400}


def test_http_1_0_is_answered_without_a_host(client: Client) -> None:
    (answer,) = client.raw(b"GET " + PATH.encode() + b" HTTP/1.0\r\n%AUTH%\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("target", [b"*", b"http://other.example" + PATH.encode(), b"//x" + PATH.encode()])
def test_a_target_in_another_form_is_answered_or_refused(client: Client, target: bytes) -> None:
    (answer,) = client.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n\r\n", path="")
    assert answer.status in {200, 400, 404}


def test_an_idle_connection_is_used_again(service: Service) -> None:
    token = make_token("idle").encode()
    request = GET.replace(b"%AUTH%", b"Authorization: Bearer " + token) + b"\r\n"
    with Wire("127.0.0.1", service.port) as wire:
        for _ in range(3):
            wire.send(request)
            assert wire.answer("GET").status == 200
