"""Versions over HTTP: ETag, If-None-Match, If-Match, history."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contract import HISTORY_PATH, PATH, Client
from tests.processes import Service, make_token


def test_the_etag_is_the_version(client: Client) -> None:
    assert client.get().headers["etag"] == '"0"'
    assert client.post({"enabled": True}).headers["etag"] == '"1"'
    assert client.post({"enabled": True}).headers["etag"] == '"1"'
    assert client.post({"enabled": False}).headers["etag"] == '"2"'
    assert client.get().headers["etag"] == client.request("HEAD").headers["etag"] == '"2"'


TAGS_OF_NO_VERSION = [
    '"00"', '"x"', '"-0"', '""', '"99999999999999999999"', '"\xe4"', '"0-"', '"0gzip"', '"0-gzip-"',
    '"0-5d3f2a10"', '"-gzip"', '"0---gzip"',
]  # fmt: skip
CODED = pytest.mark.parametrize(
    "suffix",
    ["-gzip", "--gzip", ";gzip", ";gz", ":gzip", "+gzip", "-GZIP", "-br", ";br", "-zstd", "-deflate", "-x-gzip"],
)


@pytest.mark.parametrize("condition", ['"1"', 'W/"1"', '"0", "1"', '"x","1" , W/"y"', "*", ', "1",', '"a,b", "1"'])
def test_unchanged_setting_is_a_304(client: Client, condition: str) -> None:
    client.post({"enabled": True})
    answer = client.get(headers={"If-None-Match": condition})
    assert (answer.status, answer.headers["etag"]) == (304, '"1"')
    assert "content-type" not in answer.headers
    assert client.request("HEAD", headers={"If-None-Match": condition}).status == 304


@pytest.mark.parametrize(
    "condition", ['"0"', '"2"', 'W/"0"', '"01"', '"1 "', "1", '"1', "", "**", '"1" "0"', "'1'", '"1", *', 'w/"1"']
)
def test_other_or_malformed_if_none_match_is_answered_in_full(client: Client, condition: str) -> None:
    client.post({"enabled": True})
    answer = client.get(headers={"If-None-Match": condition})
    assert (answer.status, answer.json) == (200, {"enabled": True})


def test_condition_may_span_several_header_lines(client: Client) -> None:
    head = (
        b"GET " + PATH.encode() + b' HTTP/1.1\r\nHost: x\r\n%AUTH%\r\nIf-None-Match: "7"\r\nIf-None-Match: "0"\r\n\r\n'
    )
    assert client.raw(head)[0].status == 304


@CODED
def test_tag_that_a_proxy_suffixed_is_the_version(client: Client, suffix: str) -> None:
    """Apache, Caddy and Jetty append the coding when they compress, and pass on what the client sends back."""
    client.change(True)
    assert client.get(headers={"If-None-Match": f'"1{suffix}"'}).status == 304
    assert client.get(headers={"If-None-Match": f'W/"1{suffix}"'}).status == 304
    assert client.post({"enabled": False}, headers={"If-Match": f'"0{suffix}"'}).status == 409
    assert client.post({"enabled": False}, headers={"If-Match": f'"1{suffix}"'}).headers["etag"] == '"2"'
    assert client.post({"enabled": True}, headers={"If-Match": f'W/"2{suffix}"'}).headers["etag"] == '"3"'


def test_rival_change_conflicts_despite_weak_tags(client: Client) -> None:
    """As behind an nginx that compresses: a lost update is a conflict, and a write without a rival is none."""
    seen = f"W/{client.get().headers['etag']}"
    client.change(True, False)
    conflict = client.post({"enabled": True}, headers={"If-Match": seen})
    assert (conflict.status, conflict.headers["etag"]) == (409, '"2"')
    assert client.post({"enabled": True}, headers={"If-Match": f"W/{conflict.headers['etag']}"}).status == 200


@pytest.mark.parametrize("condition", ['"0"', '"7", "0"', "*", '"a,b", "0"', 'W/"0", "0"', ',"0",', 'W/"0"'])
def test_change_that_expects_the_current_version_is_made(client: Client, condition: str) -> None:
    answer = client.post({"enabled": True}, headers={"If-Match": condition})
    assert (answer.status, answer.headers["etag"]) == (200, '"1"')


@pytest.mark.parametrize("condition", ['"1"', 'W/"1"', *TAGS_OF_NO_VERSION])
@pytest.mark.parametrize("enabled", [True, False])
def test_change_that_expects_another_version_is_a_409(client: Client, condition: str, enabled: bool) -> None:
    answer = client.post({"enabled": enabled}, headers={"If-Match": condition.encode("latin-1")})
    assert (answer.status, answer.headers["etag"]) == (409, '"0"')
    assert client.get().headers["etag"] == '"0"'


@pytest.mark.parametrize(
    "condition", ["", "0", '"0', "**", '* , "0"', '"0" "1"', "'0'", 'w/"0"', ",", '"0";"1"', '"a b"']
)
def test_a_malformed_if_match_is_a_400(client: Client, condition: str) -> None:
    answer = client.post({"enabled": True}, headers={"If-Match": condition})
    assert (answer.status, answer.json["message"]) == (400, 'If-Match: expected * or entity tags, such as "3".')
    assert not client.enabled()


@pytest.mark.parametrize("condition", ["*", '"1"', 'W/"1"', '"7", "1"', '"1-gzip"', '"1", "1"'])
@pytest.mark.parametrize("enabled", [True, False])
def test_write_with_a_failed_if_none_match_is_a_409(client: Client, condition: str, enabled: bool) -> None:
    client.change(True)
    answer = client.post({"enabled": enabled}, headers={"If-None-Match": condition})
    assert (answer.status, answer.headers["etag"]) == (409, '"1"')
    assert (client.enabled(), len(client.history())) == (True, 1)


def test_only_the_first_write_of_a_setting_meets_if_none_match(client: Client) -> None:
    answers = [client.post({"enabled": True}, headers={"If-None-Match": "*"}) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 409]


@pytest.mark.parametrize("condition", ['"0"', '"2", "x"', '"1x"', '""', 'W/"0"'])
def test_write_with_if_none_match_of_another_version_is_made(client: Client, condition: str) -> None:
    client.change(True)
    answer = client.post({"enabled": False}, headers={"If-None-Match": condition})
    assert (answer.status, answer.headers["etag"]) == (200, '"2"')


@pytest.mark.parametrize(
    ("match", "none_match", "status"),
    [
        ('"1"', '"0"', 200),
        ('"1"', '"1"', 409),
        ('"0", "1"', "*", 409),
        ("*", "*", 409),
        ("*", '"0"', 200),
        ('"0"', '"0"', 409),
    ],
)
def test_both_conditions_must_hold(client: Client, match: str, none_match: str, status: int) -> None:
    client.change(True)
    headers = {"If-Match": match, "If-None-Match": none_match}
    assert client.post({"enabled": False}, headers=headers).status == status


@pytest.mark.parametrize("condition", ["", "1", '"1', "**", '*, "1"', "null"])
def test_malformed_if_none_match_of_a_write_is_a_400(client: Client, condition: str) -> None:
    answer = client.post({"enabled": True}, headers={"If-None-Match": condition})
    assert (answer.status, answer.json["message"]) == (400, 'If-None-Match: expected * or entity tags, such as "3".')
    assert not client.enabled()


def test_responses_with_a_version_may_not_be_transformed(client: Client) -> None:
    """Proxies that compress would change or remove the ETag. Envoy, HAProxy and Cloudflare heed this directive."""
    for answer in (client.get(), client.post({"enabled": True}), client.get(headers={"If-None-Match": "*"})):
        assert answer.headers["cache-control"] == "no-store, no-transform"


def test_one_of_many_writes_to_the_same_version_succeeds(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post({"enabled": True}, headers={"If-Match": '"0"'}), range(64)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 63
    # A conflict returns the current version, both after If-Match and after EXEC.
    assert {answer.headers["etag"] for answer in answers} == {'"1"'}


def test_history_records_value_author_and_time_of_each_change(service: Service, tenant: str) -> None:
    for number, subject in enumerate(["anna", "ben", None]):
        client = service.client(make_token(tenant, sub=subject))
        client.post({"enabled": number % 2 == 0}, headers={"X-Request-ID": f"change-{number}"})
    changes = client.history()
    moments = [change.pop("changed_at") for change in changes]
    assert changes == [
        {"version": 3, "enabled": True, "changed_by": None, "reason": None, "request_id": "change-2"},
        {"version": 2, "enabled": False, "changed_by": "ben", "reason": None, "request_id": "change-1"},
        {"version": 1, "enabled": True, "changed_by": "anna", "reason": None, "request_id": "change-0"},
    ]
    assert moments == sorted(moments, reverse=True)
    assert all(len(moment) == len("2026-11-23T16:00:00.123Z") and moment.endswith("Z") for moment in moments)


def test_a_history_is_paged(client: Client) -> None:
    for number in range(25):
        client.post({"enabled": number % 2 == 0})

    def versions(**parameters: Any) -> list[int]:
        return [change["version"] for change in client.history(**parameters)]

    assert versions() == list(range(25, 5, -1))
    assert versions(limit=100) == list(range(25, 0, -1))
    assert versions(limit=2) == [25, 24]
    assert versions(limit=2, before=24) == [23, 22]
    assert versions(before=1) == versions(before=0) == []
    assert versions(limit=1, before=10**30) == [25]


def test_history_has_changes_of_its_tenant_only(service: Service, client: Client, tenant: str) -> None:
    client.post({"enabled": True})
    assert service.client(make_token(f"{tenant}-other")).history() == []


@pytest.mark.parametrize(
    ("query", "place"),
    [
        *(
            (f"limit={value}", "limit")
            for value in ("0", "101", "-1", "x", "", "1.0", "1e1", "05", "+5", "%205", "1_0", "%D9%A3")
        ),
        *((f"before={value}", "before") for value in ("-1", "-0", "x", "", "1.0", "00", "null", "9" * 1001)),
        ("limit=5&limit=6", "limit"),
        ("before=5&before=5", "before"),
    ],
)  # fmt: skip
def test_malformed_parameter_is_a_400_that_names_it(client: Client, query: str, place: str) -> None:
    answer = client.request("GET", f"{HISTORY_PATH}?{query}")
    assert answer.status == 400
    assert answer.json["message"].startswith(f"query.{place}: expected one whole number, at least ")


@pytest.mark.parametrize("query", ["", "x=1", "limit", "&&&", "%FF=%FF", "&".join(f"x{n}={n}" for n in range(500))])
def test_unknown_parameters_are_ignored_or_too_many(client: Client, query: str) -> None:
    assert client.request("GET", f"{HISTORY_PATH}?{query}").status in {200, 400}


def test_history_needs_a_token_and_is_read_only(service: Service, client: Client) -> None:
    assert service.client(None).request("GET", HISTORY_PATH).status == 401
    answer = client.request("POST", HISTORY_PATH, json={"enabled": True})
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert client.request("GET", f"{HISTORY_PATH}/").status == 404


def test_history_has_the_configured_length(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, HISTORY_LENGTH="3", JWT_READ_SCOPE="r") as service:
        client = service.client(make_token(tenant, scope="r"))
        for number in range(10):
            client.post({"enabled": number % 2 == 0})
        assert [change["version"] for change in client.history()] == [10, 9, 8]
        assert service.client(make_token(tenant)).request("GET", HISTORY_PATH).status == 403
