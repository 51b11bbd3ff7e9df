"""Heads that the server refuses although httptools accepts them: version, Host and Transfer-Encoding."""

import pytest

from app.server.request_head import is_valid_host
from tests.contract import PATH, Answer, Client, Wire, check
from tests.processes import Service, make_token

BODY = b'{"enabled": true}'
HEAD = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%AUTH%\r\n"
WRITE = HEAD + b"Content-Length: 17\r\n\r\n" + BODY
CHUNKED = b"\r\n11\r\n" + BODY + b"\r\n0\r\n\r\n"


def send_malformed(client: Client, request: bytes) -> Answer:
    """Send a malformed request, check for a 400 that stores nothing, and return the answer."""
    (answer,) = client.raw(request, malformed=True)
    assert answer.status == 400
    assert client.get().headers["etag"] == '"0"'
    return answer


@pytest.mark.parametrize("version", [b"RTSP/1.0", b"RTSP/1.1", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/3.0"])
def test_other_protocol_or_version_is_a_400(client: Client, version: bytes) -> None:
    send_malformed(client, WRITE.replace(b"HTTP/1.1", version))


@pytest.mark.parametrize("line", [b"SOURCE / ICE/1.0", b"SOURCE / ICE/1.1", b"GET /", b"OPTIONS / RTSP/1.0"])
def test_request_line_without_http_is_a_400(client: Client, line: bytes) -> None:
    (answer,) = client.raw(line + b"\r\nHost: x\r\n\r\n", path="")
    assert answer.status == 400


BEFORE = [b"", b"\r\n", HEAD + b"Content-Length: 17\r\n\r\n" + BODY, HEAD + b"Transfer-Encoding: chunked\r\n" + CHUNKED]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_rtsp_is_refused_in_any_split_and_behind_any_request(service: Service, before: bytes, size: int) -> None:
    auth = f"Authorization: Bearer {make_token(f'rtsp-{size}-{len(before)}')}".encode()
    sent = (before + WRITE.replace(b"HTTP/1.1", b"RTSP/1.0").replace(b"true", b"null")).replace(b"%AUTH%", auth)
    with Wire("127.0.0.1", service.port) as wire:
        for start in range(0, len(sent), size):
            wire.send(sent[start : start + size])
        if before.strip():
            assert check("POST", PATH, wire.answer("POST")).json == {"enabled": True}
        answer = check("POST", PATH, wire.answer("POST"), malformed=True)
        assert answer.json["message"] == "Expected a valid HTTP/1.1 request."
        assert wire.read() == b""


def test_name_of_another_protocol_elsewhere_is_allowed(client: Client) -> None:
    head = HEAD + b"X: POST / RTSP/1.0\r\nY: RTSP/1.0\r\nTransfer-Encoding: chunked\r\n"
    (answer,) = client.raw(head + CHUNKED)
    assert answer.json == {"enabled": True}


INVALID_HOSTS = [
    "a/b?c#d@e", "[::", "::1", "a:99999", "a:65536", "a:x", "a:80:80", "a b", "ä.example", "user@a", "a,b:c:d", "[::1",
    "[::1]x", "[1.2.3.4]", "[:::]", "[fe80::1%25eth0]", "[]", ":80", "%zz", "%0", "a\\b", '"a"', "<a>", "a|b", "a^b",
    "a`b", "{a}", "a\tb",
]  # fmt: skip


@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_invalid_host_is_a_400(client: Client, host: str) -> None:
    answer = send_malformed(client, WRITE.replace(b"Host: x", b"Host: " + host.encode()))
    assert "Host" in answer.json["message"]


VALID_HOSTS = [
    "", "x", "a.example", "A.EXAMPLE", "retailer_1.x.newstore.net", "a-b.example.", "127.0.0.1", "127.0.0.1:8000",
    "a:", "a:0", "a:65535", "[::1]", "[::1]:8000", "[::ffff:1.2.3.4]",
    "xn--4ca.example", "%C3%A4.example", "a!$&'()*+,;=~",
]  # fmt: skip


@pytest.mark.parametrize("host", VALID_HOSTS)
def test_valid_host_is_accepted(client: Client, host: str) -> None:
    (answer,) = client.raw(WRITE.replace(b"Host: x", b"Host: " + host.encode()))
    assert answer.status == 200
    assert is_valid_host(host.encode())


def test_each_request_of_a_connection_needs_a_valid_host(client: Client) -> None:
    good, bad = WRITE, WRITE.replace(b"Host: x", b"Host: a/b")
    answers = client.raw(good + good + bad, answers=3, malformed=True)
    assert [answer.status for answer in answers] == [200, 200, 400]


@pytest.mark.parametrize(
    "headers",
    [
        b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: , chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 17", b"Content-Length: 17\r\nTransfer-Encoding: chunked",
    ],
)  # fmt: skip
def test_transfer_encoding_except_chunked_is_a_400(client: Client, headers: bytes) -> None:
    send_malformed(client, HEAD + headers + b"\r\n" + CHUNKED)


def test_transfer_encoding_in_http_1_0_is_a_400(client: Client) -> None:
    send_malformed(client, HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n" + CHUNKED)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_is_read_in_any_case(client: Client, coding: bytes) -> None:
    (answer,) = client.raw(HEAD + b"Transfer-Encoding: " + coding + b"\r\n" + CHUNKED)
    assert answer.json == {"enabled": True}
