"""Damaged values in Redis: each path answers 500, the log names the key and the fault, and nothing changes."""

import json
from typing import Any

import pytest

from app.model import MAX_VERSION
from app.web.etags import expected_versions
from tests.contract import FLAGS_PATH, HISTORY_PATH, PATH, Client
from tests.processes import Service, make_token
from tests.streams import EVENTS_PATH, EventStream


def stored(**members: Any) -> bytes:
    whole = {"enabled": True, "version": 3, "at": 1, "by": "anna", "request": "request-1", "id": "id-1"}
    return json.dumps(whole | members).encode()


def keys(tenant: str) -> tuple[str, str]:
    return f"external_oms:{{{tenant}}}", f"external_oms:{{{tenant}}}:history"


VERSION_FAULT = "version: expected a whole number from 1 to 999999999999999999"
TEXT_FAULT = "expected null or at most 1024 characters, without lone surrogates"
BY_FAULT = f"by: {TEXT_FAULT}"
DAMAGED = {
    "version beyond ETags": (stored(version=10**18), VERSION_FAULT),
    "version of 4,300 digits": (stored().replace(b"3", b"1" * 4300, 1), VERSION_FAULT),
    "version of 5,000 digits": (stored().replace(b"3", b"1" * 5000, 1), "expected a JSON object"),
    "version below 1": (stored(version=-1), VERSION_FAULT),
    "version is true": (stored(version=True), VERSION_FAULT),
    "enabled is 1": (stored(enabled=1), "enabled: expected true or false"),
    "at is true": (stored(at=True), "at: expected a whole number"),
    "at before 1970": (stored(at=-1), "at: expected a whole number"),
    "at after the year 9999": (stored(at=253_402_300_800_000), "at: expected a whole number"),
    "by is a list": (stored(by=["anna"]), BY_FAULT),
    "by is long": (stored(by="x" * 1025), BY_FAULT),
    "by has a lone surrogate": (stored(by="\ud800"), BY_FAULT),
    "reason is a number": (stored(reason=5), f"reason: {TEXT_FAULT}"),
    "reason is long": (stored(reason="x" * 1025), f"reason: {TEXT_FAULT}"),
    "request is long": (stored(request="x" * 65), "request: expected 1 to 64 printable ASCII characters"),
    "request is empty": (stored(request=""), "request: expected 1 to 64 printable ASCII characters"),
    "request has a lone surrogate": (stored(request="\udfff"), "request: expected 1 to 64 printable"),
    "id is long": (stored(id="x" * 65), "id: expected 1 to 64 printable ASCII characters"),
    "id has a line end": (stored(id="x\n"), "id: expected 1 to 64 printable ASCII characters"),
    "id is missing": (stored().replace(b'"id"', b'"di"'), "expected a member 'id'"),
    "a member twice": (stored().replace(b"{", b'{"enabled": false, '), "expected each name once"),
    "an unknown member is NaN": (stored(more=float("nan")), "NaN is not JSON"),
    "an unknown member is huge": (stored(more="x" * 16_384), "expected at most 16384 bytes"),
    "UTF-16": (stored().decode().encode("utf-16"), "expected a JSON object"),
    "deeply nested": (stored(more=0).replace(b"0", b"[" * 8000, 1), "expected a JSON object"),
    "not an object": (b"[]", "expected a JSON object"),
}
damaged = pytest.mark.parametrize("case", DAMAGED)


def check_500(service: Service, method: str, path: str, client: Client, fault: str) -> None:
    json_body = {"content": b'{"enabled":false}', "headers": {"Content-Type": "application/json"}}
    answer = client.request(method, path, **(json_body if method == "POST" else {}))
    assert answer.status == 500
    request_id = answer.headers["x-request-id"]
    assert service.logs(f"request_id={request_id} method={method}")
    (line,) = [line for line in service.log.splitlines() if f"request_id={request_id} method=" in line]
    assert fault in line
    assert len(line) < 1000


@damaged
def test_damaged_setting_is_a_500_and_stays_unchanged(
    service: Service, client: Client, raw: Any, tenant: str, case: str
) -> None:
    value, fault = DAMAGED[case]
    setting, history = keys(tenant)
    raw.set(setting, value)
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", HISTORY_PATH), ("GET", EVENTS_PATH)):
        check_500(service, method, path, client, f"StoreError: {setting}: ")
        check_500(service, method, path, client, fault)
    check_500(service, "POST", FLAGS_PATH, client, fault)
    assert (raw.get(setting), raw.exists(history)) == (value, 0)


@damaged
def test_damaged_history_entry_is_a_500_only_for_its_page(
    service: Service, client: Client, raw: Any, tenant: str, case: str
) -> None:
    value, fault = DAMAGED[case]
    setting, history = keys(tenant)
    raw.set(setting, stored(version=5, enabled=False))
    raw.hset(history, mapping={"4": stored(version=4), "3": value, "2": stored(version=2)})
    check_500(service, "GET", HISTORY_PATH, client, fault)
    check_500(service, "GET", HISTORY_PATH, client, f"StoreError: {history} 3: ")
    assert [change["version"] for change in client.history(limit=2)] == [5, 4]
    assert [change["version"] for change in client.history(before=3)] == [2]
    answer = client.request("GET", EVENTS_PATH, headers={"Last-Event-ID": "2"})
    assert answer.status == 500
    assert client.get().headers["etag"] == '"5"'
    assert raw.hget(history, "3") == value


@pytest.mark.parametrize("inner", [1, 2, 4, 5, MAX_VERSION])
def test_history_entry_with_a_wrong_version_is_a_500(
    service: Service, client: Client, raw: Any, tenant: str, inner: int
) -> None:
    setting, history = keys(tenant)
    raw.set(setting, stored(version=4, enabled=False))
    raw.hset(history, "3", stored(version=inner))
    fault = f"StoreError: {history} 3: version: expected 3, found {inner}"
    check_500(service, "GET", HISTORY_PATH, client, fault)
    assert raw.hget(history, "3") == stored(version=inner)


def test_history_entries_newer_than_the_setting_are_hidden_and_overwritten(
    client: Client, raw: Any, tenant: str
) -> None:
    """A restored backup of one tenant may have such entries."""
    setting, history = keys(tenant)
    raw.set(setting, stored(version=3, enabled=False))
    raw.hset(history, mapping={str(version): stored(version=version, by="lost") for version in (3, 4, 5)})
    assert [change["version"] for change in client.history()] == [3]
    for enabled in (True, False, True):
        client.post({"enabled": enabled})
    assert [(each["version"], each["changed_by"]) for each in client.history()] == [
        (6, "tester"), (5, "tester"), (4, "tester"), (3, "anna"),
    ]  # fmt: skip


def test_highest_version_is_served_but_cannot_change(service: Service, client: Client, raw: Any, tenant: str) -> None:
    setting, history = keys(tenant)
    value = stored(version=MAX_VERSION)
    raw.set(setting, value)
    tag = f'"{MAX_VERSION}"'
    assert client.get().headers["etag"] == tag
    assert client.get(headers={"If-None-Match": tag}).status == 304
    assert client.post({"enabled": True}, headers={"If-Match": tag}).status == 200
    check_500(service, "POST", PATH, client, f"StoreError: the setting has the highest version, {MAX_VERSION}")
    assert (raw.get(setting), raw.exists(history)) == (value, 0)


def test_if_match_accepts_versions_up_to_the_highest() -> None:
    assert expected_versions([(b"if-match", f'"{MAX_VERSION}"'.encode())]) == frozenset({MAX_VERSION})
    assert expected_versions([(b"if-match", f'"{MAX_VERSION + 1}"'.encode())]) == frozenset()


@pytest.mark.parametrize("subject", ["\U0001f600" * 255, "\x00" * 255, "", None])
def test_every_valid_subject_is_stored_and_read_back(
    service: Service, client: Client, tenant: str, subject: str | None
) -> None:
    author = service.client(make_token(tenant, sub=subject))
    assert author.post({"enabled": True}, headers={"X-Request-ID": "x" * 64}).status == 200
    assert author.post({"enabled": False}).status == 200
    assert [change["changed_by"] for change in client.history()] == [subject, subject]


def test_unknown_members_are_ignored_and_kept(service: Service, client: Client, raw: Any, tenant: str) -> None:
    """A later release may have written them."""
    setting, history = keys(tenant)
    value = stored(more={"deep": [1, 2.5, None]})
    raw.set(setting, value)
    assert client.enabled()
    assert client.post({"enabled": False}).headers["etag"] == '"4"'
    assert raw.hget(history, "3") == value
    assert [change["version"] for change in client.history()] == [4, 3]
    with EventStream(service.port, make_token(tenant), 2) as stream:
        assert stream.versions(2) == [3, 4]
