"""The header `Change-Reason`: its form, and the reason in the history and in events."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract import PATH, Client
from tests.processes import Service, make_token
from tests.streams import EventStream

PRINTABLE_ASCII = "".join(map(chr, range(0x20, 0x7F)))
EXPECTED = (
    "Change-Reason: expected one header of 1 to 200 printable characters in UTF-8. All except printable ASCII, and the "
    "percent sign, must be percent-encoded, such as caf%C3%A9."
)


def reasons(client: Client) -> list[Any]:
    """Return the reasons in the history, oldest first."""
    return [change["reason"] for change in client.history()][::-1]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Go-live of the new warehouse", "Go-live of the new warehouse"),
        ("x", "x"),
        ("caf%C3%A9 %E2%9C%93 100%25", "café ✓ 100%"),
        ("caf%c3%a9", "café"),
        (quote("\U0001f600" * 200), "\U0001f600" * 200),
        (f"a{PRINTABLE_ASCII.replace('%', '%25')}z", f"a{PRINTABLE_ASCII}z"),
        ("%20", " "),
        ("a, b; c=\"d\" 'e' \\n", "a, b; c=\"d\" 'e' \\n"),
    ],
)
def test_reason_is_stored_with_the_change(
    service: Service, client: Client, tenant: str, header: str, reason: str
) -> None:
    assert client.post({"enabled": True}, headers={"Change-Reason": header}).status == 200
    client.change(False)
    assert reasons(client) == [reason, None]
    with EventStream(service.port, make_token(tenant), 0) as stream:
        events = [stream.event(), stream.event()]
    assert [event and event.data["reason"] for event in events] == [reason, None]


@pytest.mark.parametrize(
    "header",
    [
        "", "x" * 201, quote("é" * 201), "100%", "50% off", "%", "%4", "%4g", "%%41",
        "caf\xe9".encode("latin-1"), "café".encode(), "%ff", "%c3", "%C0%AF", "%ed%a0%80", "%F4%90%80%80",
        "%0a", "%0D%0Atime=now", "%00", "%1b[31m", "%7f", "%c2%85", "%e2%80%a8", "%E2%80%AE", "%EF%BF%BE", "%ee%80%80",
        "a\tb", "%09", "%C2%A0", "%E2%80%8B",
    ],
)  # fmt: skip
def test_malformed_reason_is_a_400_that_changes_nothing(client: Client, header: str | bytes) -> None:
    answer = client.post({"enabled": True}, headers={"Change-Reason": header})
    assert (answer.status, answer.json["message"]) == (400, EXPECTED)
    assert client.history() == []


def test_second_reason_is_a_400_that_changes_nothing(client: Client) -> None:
    body = b'{"enabled": true}'
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n%AUTH%\r\nContent-Type: application/json\r\n".encode()
    head += b"Content-Length: %d\r\n" % len(body)
    for second in (b"two", b"one", b""):
        headers = b"Change-Reason: one\r\nchange-reason: " + second + b"\r\n\r\n"
        (answer,) = client.raw(head + headers + body)
        assert (answer.status, answer.json["message"]) == (400, EXPECTED)
    assert client.history() == []


def test_reason_of_a_write_that_changes_nothing_is_not_stored(client: Client) -> None:
    client.post({"enabled": True}, headers={"Change-Reason": "first"})
    assert client.post({"enabled": True}, headers={"Change-Reason": "second"}).headers["etag"] == '"1"'
    assert client.post({"enabled": False}, headers={"Change-Reason": "third", "If-Match": '"7"'}).status == 409
    assert reasons(client) == ["first"]


def test_reads_ignore_the_header(client: Client) -> None:
    assert client.get(headers={"Change-Reason": "%"}).status == 200
