"""Request bodies over HTTP: media type, framing, size and JSON."""

import socket

import pytest

from tests.contract import PATH, Client, Wire
from tests.processes import Service, make_token

GOOD = b'{"enabled": true}'
HEAD = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "body: expected a property 'enabled'."),
        (b"[]", "body: expected a value of type object."),
        (b"null", "body: expected a value of type object."),
        (b"true", "body: expected a value of type object."),
        (b'"enabled"', "body: expected a value of type object."),
        *(
            (b'{"enabled": %s}' % value, "body.enabled: expected a value of type boolean.")
            for value in (b"1", b"0", b"1.0", b'"true"', b"null", b"[true]", b"{}", b'""')
        ),
        (b'{"enabled": true, "enabled": true}', "body: expected unique keys in each object."),
        (b'{"Enabled": true}', "body: expected a property 'enabled'."),
    ],
)
def test_body_against_the_contract_is_a_400_with_the_reason(client: Client, body: bytes, message: str) -> None:
    answer = client.post(body)
    assert (answer.status, answer.json["message"]) == (400, message)
    assert not client.enabled()


def test_body_that_was_sent_before_has_the_same_effect_again(client: Client) -> None:
    bodies = {GOOD: (200, True), b'{"enabled": 1}': (400, True), b'{"enabled": false}': (200, False)}
    for body, (status, enabled) in [*bodies.items()] * 3:
        assert client.post(body).status == status
        assert client.enabled() is enabled


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b"\xff", b'{"enabled": true}x', b'{"enabled": NaN}',
        b'{"x": "\\ud800", "enabled": true}',
        b'{"enabled": true, "x": ' + b"9" * 5000 + b"}", b'{"enabled": true, "x": ' + b"[" * 8000,
        '{"enabled": true}'.encode("utf-16"), b"\xef\xbb\xbf" + GOOD,
    ],
)  # fmt: skip
def test_body_that_is_not_strict_json_is_a_400(client: Client, body: bytes) -> None:
    assert client.post(body).status == 400
    assert not client.enabled()


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json", "Application/JSON", "APPLICATION/JSON; charset=utf-8", 'application/json; charset="UTF-8"',
        "application/json ; charset=Utf-8", "application/json;charset=utf-8", "application/json; indent=2",
        "application/json; charset=utf8", 'application/json;charset="UTF8"',
    ],
)  # fmt: skip
def test_json_media_type_is_accepted_in_any_spelling(client: Client, media_type: str) -> None:
    assert client.post(GOOD, headers={"Content-Type": media_type}).json == {"enabled": True}
    assert client.enabled()


@pytest.mark.parametrize(
    "media_type",
    [
        "", "text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/json; charset=klingon", "application/json;charset=utf-16", "application/json; charset=latin-1",
        "application/json; charset=utf-7", "application/json; charset=utf88", "application/json; charset=us-ascii",
        "application/*", "*/*", "json", "application/json, application/json", "application/vnd.api+json", "\xff", ";;;",
        "application/json; charset*=utf-8''utf-16",
    ],
)  # fmt: skip
def test_any_other_media_type_is_a_415(client: Client, media_type: str) -> None:
    assert client.request("POST", content=GOOD, headers={"Content-Type": media_type.encode("latin-1")}).status == 415
    assert not client.enabled()


def test_no_media_type_is_a_415(client: Client) -> None:
    assert client.request("POST", content=GOOD).status == 415
    assert not client.enabled()


def test_two_media_types_are_a_415(client: Client) -> None:
    head = HEAD + b"Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\n"
    assert client.raw(head + GOOD)[0].status == 415
    assert not client.enabled()


@pytest.mark.parametrize("coding", ["gzip", "br", "x", "identity, gzip"])
def test_body_with_a_content_encoding_is_a_415(client: Client, coding: str) -> None:
    assert client.post(GOOD, headers={"Content-Encoding": coding}).status == 415
    assert not client.enabled()


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/json; charset=klingon", "\xff", ";", "a/b/c"])
def test_a_get_may_have_any_media_type(client: Client, media_type: str) -> None:
    assert client.get(headers={"Content-Type": media_type.encode("latin-1")}).status == 200


def test_body_of_a_get_is_ignored(client: Client) -> None:
    assert client.get(content=b"x" * 1_000_000).json == {"enabled": False}


def test_largest_body_is_accepted_and_one_byte_more_is_a_413(client: Client) -> None:
    longest = GOOD + b" " * (16384 - len(GOOD))
    assert client.post(longest + b" ").status == 413
    assert not client.enabled()
    assert client.post(longest).status == 200


def test_too_large_content_length_is_a_413_before_the_body(client: Client) -> None:
    head = HEAD + b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    assert client.raw(head)[0].status == 413


def test_an_endless_chunked_body_is_a_413(client: Client) -> None:
    head = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert client.raw(head + b"1000\r\n" + b" " * 4096 + b"\r\n4000\r\n" + b" " * 16384)[0].status == 413
    assert not client.enabled()


CHUNKED = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunked_body_is_read_whole(client: Client) -> None:
    assert client.raw(CHUNKED + b"5\r\n" + GOOD[:5] + b"\r\nc;x=y\r\n" + GOOD[5:] + b"\r\n0\r\n\r\n")[0].status == 200
    assert client.enabled()


def test_trailers_of_a_chunked_body_are_ignored(client: Client) -> None:
    trailers = b"Authorization: Bearer x\r\nX-Request-ID: trailer\r\nContent-Type: text/plain\r\n\r\n"
    answer = client.raw(CHUNKED + b"11\r\n" + GOOD + b"\r\n0\r\n" + trailers)[0]
    assert answer.status == 200
    assert answer.headers["x-request-id"] != "trailer"


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"11\r\n" + GOOD + b"x0\r\n\r\n", b"ffffffffffffffffff\r\n"])
def test_malformed_chunk_is_a_400(client: Client, chunk: bytes) -> None:
    assert client.raw(CHUNKED + chunk)[0].status == 400
    assert not client.enabled()


def test_content_length_with_chunked_encoding_is_a_400(client: Client) -> None:
    head = HEAD + b"Content-Type: application/json\r\nContent-Length: 17\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert client.raw(head + b"11\r\n" + GOOD + b"\r\n0\r\n\r\n")[0].status == 400
    assert not client.enabled()


@pytest.mark.parametrize("length", [b"-1", b"x", b"1 7", b"0x11", b"17, 18", b"9" * 30])
def test_malformed_content_length_is_a_400(client: Client, length: bytes) -> None:
    head = HEAD + b"Content-Type: application/json\r\nContent-Length: " + length + b"\r\n\r\n"
    assert client.raw(head + GOOD)[0].status == 400
    assert not client.enabled()


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 40\r\n\r\n" + GOOD, b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + GOOD]
)
def test_client_that_leaves_within_its_body_stores_nothing(
    service: Service, client: Client, tenant: str, rest: bytes
) -> None:
    """The part that arrives is valid JSON, but it is not the whole body."""
    own = f"left-{tenant}"
    auth = f"Authorization: Bearer {make_token(tenant)}\r\nX-Request-ID: {own}".encode()
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(HEAD.replace(b"%AUTH%", auth) + b"Content-Type: application/json\r\n" + rest)
    assert service.logs(f"request_id={own} method=POST route={PATH} path={PATH} status=0")
    assert not client.enabled()


def test_expect_continue_gets_100_or_the_final_answer(service: Service, client: Client, tenant: str) -> None:
    expect = HEAD + b"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: "
    refused = client.raw(expect + b"99999\r\n\r\n")[0]
    # Only the client knows if the body follows, so the server reads nothing more.
    assert (refused.status, refused.headers["connection"]) == (413, "close")
    auth = f"Authorization: Bearer {make_token(tenant)}".encode()
    with Wire("127.0.0.1", service.port) as wire:
        wire.send(expect.replace(b"%AUTH%", auth) + b"17\r\n\r\n")
        assert wire.readline() + wire.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(GOOD)
        assert wire.answer("POST").json == {"enabled": True}
