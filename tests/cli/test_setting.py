"""`oms-config get`, `set` and `history` on the real service."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import TIME, Stranger, answer, failure, http_reply, oms_config
from tests.contract import Client
from tests.processes import Service, make_token


@pytest.fixture
def url(service: Service) -> str:
    return service.url


def lines(*arguments: str, url: str, token: str) -> list[str]:
    done = oms_config(*arguments, url=url, token=token)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_get_prints_the_value_and_its_version(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant)
    assert lines("get", url=url, token=token) == ["off (version 0, never set)"]
    client.post({"enabled": True})
    assert lines("get", url=url, token=token) == ["on (version 1)"]
    assert answer(oms_config("get", "--json", url=url, token=token)) == {"enabled": True, "version": 1}


@pytest.mark.parametrize("end", ["", "/", "/v0", "/v0/"])
def test_the_address_may_have_the_documents_base(url: str, tenant: str, end: str) -> None:
    assert oms_config("get", url=url + end, token=make_token(tenant)).returncode == 0


def test_set_tells_what_it_changed_from_what_and_whose_that_was(url: str, tenant: str) -> None:
    assert lines("set", "on", url=url, token=make_token(tenant, sub="anna")) == [
        "off -> on (version 1)",
        "before: 0  off  never set",
    ]
    changed, before = lines("set", "off", url=url, token=make_token(tenant, sub="ben"))
    assert changed == "on -> off (version 2)"
    assert re.fullmatch(rf"before: 1  on   {TIME}  anna  \w+", before)


def test_set_of_what_stands_changes_nothing_and_says_so(url: str, tenant: str) -> None:
    token = make_token(tenant, sub="anna")
    assert lines("set", "off", url=url, token=token) == [
        "off already (version 0); nothing was changed",
        "before: 0  off  never set",
    ]
    oms_config("set", "on", url=url, token=token)
    same, before = lines("set", "on", url=url, token=make_token(tenant, sub="ben"))
    assert same == "on already (version 1); nothing was changed"
    assert re.fullmatch(rf"before: 1  on   {TIME}  anna  \w+", before)


def test_set_tells_machines_the_same(url: str, tenant: str) -> None:
    token = make_token(tenant, sub="anna")
    never = {"version": 0, "enabled": False, "changed_at": None, "changed_by": None}
    first = answer(oms_config("set", "on", "--json", url=url, token=token))
    assert first == {"enabled": True, "version": 1, "changed": True, "previous": never}
    same = answer(oms_config("set", "on", "--json", url=url, token=token))
    assert (same["version"], same["changed"], same["previous"]["version"]) == (1, False, 1)
    second = answer(oms_config("set", "off", "--json", url=url, token=token))
    assert (second["enabled"], second["version"], second["changed"]) == (False, 2, True)
    assert second["previous"] == same["previous"]
    assert (second["previous"]["enabled"], second["previous"]["changed_by"]) == (True, "anna")


def test_set_with_the_version_that_stands_is_done(url: str, tenant: str) -> None:
    token = make_token(tenant)
    assert lines("set", "on", "--if-version", "0", url=url, token=token)[0] == "off -> on (version 1)"


def test_set_with_another_version_is_a_conflict_that_names_what_stands(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant)
    oms_config("set", "on", url=url, token=make_token(tenant, sub="anna"))
    line = failure(oms_config("set", "off", "--if-version", "0", url=url, token=token), 3)
    assert re.search(r" answers 409: .* Nothing was changed; the current version is 1\. \(request \w+\)$", line)
    assert client.enabled()


def test_a_conflict_is_json_for_machines(url: str, tenant: str) -> None:
    done = oms_config("set", "on", "--if-version", "4", "--json", url=url, token=make_token(tenant))
    assert (done.returncode, done.stdout) == (3, "")
    error = json.loads(done.stderr)
    assert error.keys() == {"error", "message", "version", "request_id"}
    assert (error["error"], error["version"]) == ("conflict", 0)
    assert error["message"].endswith(" Nothing was changed; the current version is 0.")


def test_a_conflict_without_a_condition_names_the_version_as_well() -> None:
    error = '{"error_code": "concurrent_update_on_tenant_setting", "message": "Concurrent", "request_id": "x"}'
    with Stranger(http_reply("409 Conflict", body=error, ETag='"7"')) as stranger:
        line = failure(oms_config("set", "on", url=stranger.url, token=make_token("acme")), 3)
    assert " answers 409: Concurrent Nothing was changed; the current version is 7. (request " in line


def test_history_is_newest_first_and_says_how_to_see_more(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant, sub="anna")
    for value in ("on", "off", "on"):
        oms_config("set", value, url=url, token=token)
    done = oms_config("history", "--limit", "2", url=url, token=token)
    assert done.returncode == 0
    newest, older = done.stdout.splitlines()
    assert re.fullmatch(rf"3  on   {TIME}  anna  [0-9a-f]{{32}}", newest)
    assert re.fullmatch(rf"2  off  {TIME}  anna  [0-9a-f]{{32}}", older)
    assert done.stderr == "older ones: oms-config history --before 2\n"
    (oldest,) = lines("history", "--before", "2", url=url, token=token)
    assert oldest.startswith("1  on ")
    told = answer(oms_config("history", "--json", url=url, token=token))
    assert told == {"changes": client.history()}


def test_a_history_without_changes_is_no_failure(url: str, tenant: str) -> None:
    done = oms_config("history", url=url, token=make_token(tenant))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no changes\n")
    assert answer(oms_config("history", "--json", url=url, token=make_token(tenant))) == {"changes": []}


def test_a_subject_cannot_command_the_terminal(url: str, tenant: str) -> None:
    token = make_token(tenant, sub="\x1b[2J✓\n1  off")
    oms_config("set", "on", url=url, token=token)
    (row,) = lines("history", url=url, token=token)
    assert r"\x1b[2J✓\n1  off" in row
    done = oms_config("history", url=url, token=token, PYTHONIOENCODING="latin-1")
    assert r"\x1b[2J\u2713\n1  off" in done.stdout


def test_a_token_that_may_write_and_not_read_sets(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, JWT_READ_SCOPE="r", JWT_WRITE_SCOPE="w") as scoped:
        url = f"http://127.0.0.1:{scoped.port}"
        done = oms_config("set", "on", url=url, token=make_token(tenant, scope="w"))
        assert (done.returncode, done.stdout) == (0, "on (version 1)\n")
        assert done.stderr.startswith("the setting is set; the change before it cannot be read: ")
        done = oms_config("set", "off", "--json", url=url, token=make_token(tenant, scope="w"))
        assert json.loads(done.stdout) == {"enabled": False, "version": 2, "changed": None, "previous": None}
        line = failure(oms_config("get", url=url, token=make_token(tenant, scope="w")), 4)
        assert " answers 403: The token lacks the scope r. (request " in line
        line = failure(oms_config("set", "on", url=url, token=make_token(tenant, scope="r")), 4)
        assert " answers 403: The token lacks the scope w. (request " in line


def test_what_a_short_history_no_longer_has_is_told_as_far_as_it_is_known(
    tmp_path: Path, redis_url: str, tenant: str
) -> None:
    with Service(tmp_path / "log", redis_url, HISTORY_LENGTH="1") as short:
        url, token = f"http://127.0.0.1:{short.port}", make_token(tenant)
        oms_config("set", "on", url=url, token=token)
        assert lines("set", "off", url=url, token=token) == ["on -> off (version 2)"]
