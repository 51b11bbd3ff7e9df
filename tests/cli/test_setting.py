"""`oms-config get`, `set` and `history` on the real service."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import TIME, FakeServer, answer, failure, http_reply, oms_config
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
    assert lines("get", url=url, token=token) == [f"off (version 0, never set) of tenant {tenant}"]
    client.post({"enabled": True})
    assert lines("get", url=url, token=token) == [f"on (version 1) of tenant {tenant}"]
    assert answer(oms_config("get", "--json", url=url, token=token)) == {
        "tenant": tenant,
        "enabled": True,
        "version": 1,
    }


@pytest.mark.parametrize("end", ["", "/", "/v0", "/v0/"])
def test_address_may_include_the_base_path(url: str, tenant: str, end: str) -> None:
    assert oms_config("get", url=url + end, token=make_token(tenant)).returncode == 0


def test_set_prints_the_change_and_the_previous_change(url: str, tenant: str) -> None:
    assert lines("set", "on", url=url, token=make_token(tenant, sub="anna")) == [
        f"off -> on (version 1) of tenant {tenant}",
        "before: 0  off  never set",
        f"undo:   oms-config set off --tenant {tenant} --if-version 1",
    ]
    changed, before, undo = lines("set", "off", url=url, token=make_token(tenant, sub="ben"))
    assert changed == f"on -> off (version 2) of tenant {tenant}"
    assert undo == f"undo:   oms-config set on --tenant {tenant} --if-version 2"
    assert re.fullmatch(rf"before: 1  on   {TIME}  anna  \w+", before)


def test_set_to_the_current_value_changes_nothing(url: str, tenant: str) -> None:
    token = make_token(tenant, sub="anna")
    assert lines("set", "off", url=url, token=token) == [
        f"off (version 0) of tenant {tenant}: already the current value, nothing was changed",
        "before: 0  off  never set",
    ]
    oms_config("set", "on", url=url, token=token)
    same, before = lines("set", "on", url=url, token=make_token(tenant, sub="ben"))
    assert same == f"on (version 1) of tenant {tenant}: already the current value, nothing was changed"
    assert re.fullmatch(rf"before: 1  on   {TIME}  anna  \w+", before)


def test_set_prints_the_same_as_json(url: str, tenant: str) -> None:
    token = make_token(tenant, sub="anna")
    never = {"version": 0, "enabled": False, "changed_at": None, "changed_by": None, "reason": None}
    first = answer(oms_config("set", "on", "--json", url=url, token=token))
    assert first == {
        "tenant": tenant, "enabled": True, "version": 1, "changed": True, "previous": never,
        "undo": f"oms-config set off --tenant {tenant} --if-version 1",
    }  # fmt: skip
    same = answer(oms_config("set", "on", "--json", url=url, token=token))
    assert (same["version"], same["changed"], same["previous"]["version"], same["undo"]) == (1, False, 1, None)
    second = answer(oms_config("set", "off", "--json", url=url, token=token))
    assert (second["enabled"], second["version"], second["changed"]) == (False, 2, True)
    assert second["previous"] == same["previous"]
    assert (second["previous"]["enabled"], second["previous"]["changed_by"]) == (True, "anna")


def test_printed_command_undoes_the_change_unless_another_followed(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant)
    for expected, status in ((False, 0), (True, 3)):
        client.change(False)
        undo = answer(oms_config("set", "on", "--json", url=url, token=token))["undo"].split()
        if status:
            client.change(False, True)
        done = oms_config(*undo[1:], url=url, token=token)
        assert (done.returncode, client.enabled()) == (status, expected)


def test_printed_command_changes_no_other_tenant(service: Service, url: str, tenant: str) -> None:
    undo = answer(oms_config("set", "on", "--json", url=url, token=make_token(tenant)))["undo"].split()
    other = service.client(make_token(f"{tenant}-2"))
    other.post({"enabled": True})  # the same value and version
    error = failure(oms_config(*undo[1:], url=url, token=make_token(f"{tenant}-2")), 2)
    rejected = f"nothing was changed: expected a token of tenant {tenant}, but it is a token of tenant {tenant}-2"
    assert re.fullmatch(rf"{rejected} \(request \w+\)", error)
    assert [change["version"] for change in other.history()] == [1]


def test_unnamed_tenant_is_not_the_expected_one() -> None:
    with FakeServer(http_reply("200 OK", body='{"enabled": true}', ETag='"1"')) as server:
        error = failure(oms_config("set", "on", "--tenant", "acme", url=server.url, token=make_token("acme")), 2)
    assert "a token of an unknown tenant: the service does not name it" in error
    assert [request.split()[0] for request in server.requests] == [b"GET"]


def test_reason_is_sent_and_printed(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant, sub="anna")
    reason = ' 50 % "café" \U0001f600\\ '
    lines("set", "on", "--reason", reason, url=url, token=token)
    assert client.history()[0]["reason"] == reason
    done = oms_config("history", url=url, token=token)
    assert re.fullmatch(rf'1  on   {TIME}  anna  \w+  "{re.escape(reason)}"\n', done.stdout)
    assert answer(oms_config("history", "--json", url=url, token=token))["changes"][0]["reason"] == reason
    _, before, _ = lines("set", "off", url=url, token=token)
    assert before.endswith(f'  "{reason}"')


@pytest.mark.parametrize("reason", ["", "x" * 201, "a\nb", "\x1b[2J", "\u202e", "a\udcffb"])
def test_unprintable_or_long_reason_is_a_usage_error(url: str, client: Client, reason: str) -> None:
    done = oms_config("set", "on", "--reason", reason, url=url, token="a.to.ken")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for '--reason': expected 1 to 200 printable characters" in done.stderr
    assert client.history() == []


def test_tenant_is_left_out_if_the_service_does_not_send_it() -> None:
    with FakeServer(http_reply("200 OK", body='{"enabled": true}', ETag='"1"')) as server:
        assert lines("get", url=server.url, token=make_token("acme")) == ["on (version 1)"]
        printed = answer(oms_config("get", "--json", url=server.url, token=make_token("acme")))
    assert printed == {"tenant": None, "enabled": True, "version": 1}


def test_set_with_the_current_version_succeeds(url: str, tenant: str) -> None:
    token = make_token(tenant)
    assert (
        lines("set", "on", "--if-version", "0", url=url, token=token)[0] == f"off -> on (version 1) of tenant {tenant}"
    )


def test_stale_version_is_a_conflict_that_names_the_current_version(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant)
    oms_config("set", "on", url=url, token=make_token(tenant, sub="anna"))
    line = failure(oms_config("set", "off", "--if-version", "0", url=url, token=token), 3)
    assert re.search(
        rf" returned 409: .* Nothing was changed; the current version of tenant {tenant} is 1\. \(request \w+\)$", line
    )
    assert client.enabled()


def test_conflict_is_json_with_the_json_option(url: str, tenant: str) -> None:
    done = oms_config("set", "on", "--if-version", "4", "--json", url=url, token=make_token(tenant))
    assert (done.returncode, done.stdout) == (3, "")
    error = json.loads(done.stderr)
    assert error.keys() == {"error", "message", "version", "request_id"}
    assert (error["error"], error["version"]) == ("conflict", 0)
    assert error["message"].endswith(f" Nothing was changed; the current version of tenant {tenant} is 0.")


def test_unconditional_conflict_names_the_current_version() -> None:
    error = '{"error_code": "concurrent_update_on_tenant_setting", "message": "Concurrent", "request_id": "x"}'
    with FakeServer(http_reply("409 Conflict", body=error, ETag='"7"')) as server:
        line = failure(oms_config("set", "on", url=server.url, token=make_token("acme")), 3)
    assert " returned 409: Concurrent Nothing was changed; the current version is 7. (request " in line


def test_history_is_newest_first_and_says_how_to_continue(url: str, tenant: str, client: Client) -> None:
    token = make_token(tenant, sub="anna")
    for value in ("on", "off", "on"):
        oms_config("set", value, url=url, token=token)
    done = oms_config("history", "--limit", "2", url=url, token=token)
    assert done.returncode == 0
    newest, older = done.stdout.splitlines()
    assert re.fullmatch(rf"3  on   {TIME}  anna  [0-9a-f]{{32}}", newest)
    assert re.fullmatch(rf"2  off  {TIME}  anna  [0-9a-f]{{32}}", older)
    older_changes = "for older changes: oms-config history --before 2\n"
    assert done.stderr == f"changes of tenant {tenant}\n{older_changes}"
    (oldest,) = oms_config("history", "--before", "2", url=url, token=token).stdout.splitlines()
    assert oldest.startswith("1  on ")
    printed = answer(oms_config("history", "--json", url=url, token=token))
    assert printed == {"tenant": tenant, "changes": client.history()}


def test_empty_history_is_no_failure(url: str, tenant: str) -> None:
    done = oms_config("history", url=url, token=make_token(tenant))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"no changes of tenant {tenant}\n")
    assert answer(oms_config("history", "--json", url=url, token=make_token(tenant))) == {
        "tenant": tenant,
        "changes": [],
    }


def test_control_characters_in_a_subject_are_escaped(url: str, tenant: str) -> None:
    token = make_token(tenant, sub="\x1b[2J✓\n1  off")
    oms_config("set", "on", url=url, token=token)
    (row,) = oms_config("history", url=url, token=token).stdout.splitlines()
    assert r"\x1b[2J✓\n1  off" in row
    done = oms_config("history", url=url, token=token, PYTHONIOENCODING="latin-1")
    assert r"\x1b[2J\u2713\n1  off" in done.stdout


def test_token_with_only_the_write_scope_can_set(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, JWT_READ_SCOPE="r", JWT_WRITE_SCOPE="w") as scoped:
        url = f"http://127.0.0.1:{scoped.port}"
        done = oms_config("set", "on", url=url, token=make_token(tenant, scope="w"))
        assert (done.returncode, done.stdout) == (0, f"on (version 1) of tenant {tenant}\n")
        assert done.stderr.startswith("the setting was set, but the previous change cannot be read: ")
        done = oms_config("set", "off", "--json", url=url, token=make_token(tenant, scope="w"))
        printed = json.loads(done.stdout)
        assert (printed["version"], printed["changed"], printed["previous"], printed["undo"]) == (2, None, None, None)
        line = failure(oms_config("get", url=url, token=make_token(tenant, scope="w")), 4)
        assert " returned 403: The token lacks the scope r. (request " in line
        line = failure(oms_config("set", "on", url=url, token=make_token(tenant, scope="r")), 4)
        assert " returned 403: The token lacks the scope w. (request " in line


def test_set_omits_a_previous_change_that_the_history_dropped(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, HISTORY_LENGTH="1") as short:
        url, token = f"http://127.0.0.1:{short.port}", make_token(tenant)
        oms_config("set", "on", url=url, token=token)
        assert lines("set", "off", url=url, token=token) == [
            f"on -> off (version 2) of tenant {tenant}",
            f"undo:   oms-config set on --tenant {tenant} --if-version 2",
        ]
