"""Proof of the guarantees: clients use the real service while Redis fails, and a checker reads what they saw.

`python -m tests.proof --operations 100000` runs the long proof. The test suite runs a short one. With
`--min-replicas 1`, a replica confirms each write (REDIS_MIN_REPLICAS).
"""

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from tests.audit import audit_lines, audit_violations
from tests.clients import Load, ServiceRegister, in_background
from tests.processes import Service, process_of, start_store, suspended
from tests.register import Entry
from tests.waiting import eventually

TENANTS = 4
CLIENTS = 16  # four for each tenant
_REPLICATION: Final = {"repl-diskless-sync-delay": "0"}


@dataclass
class Proof:
    """The result of a proof: also how many lines the audit log has, and how many have an unknown outcome."""

    load: Load
    failures: int
    audit_lines: int
    unknown_lines: int
    violations: list[str]
    seconds: float


class FailingRedis:
    """A Redis server with replicas, and the ways in which it fails. Each failure lasts at most one second."""

    def __init__(self, directory: Path, replicas: int) -> None:
        self._directory = directory / "primary"
        self._server = start_store(self._directory, durable=True, config=_REPLICATION)
        self.port = self._server.port
        config = {**_REPLICATION, "replicaof": f"127.0.0.1 {self.port}"}
        self._replicas = [
            start_store(directory / f"replica-{number}", durable=True, config=config) for number in range(replicas)
        ]
        self.wait_for_replicas()

    def failures(self) -> Iterator[Callable[[], None]]:
        """Yield the ways to fail in turn, without end."""
        ways = [self.kill, self.hang, self.cut, self.fill, self.demote]
        return itertools.cycle([*ways, self.hang_replicas] if self._replicas else ways)

    def wait_for_replicas(self) -> None:
        """Wait until the replicas are connected and have the server's data."""
        with self._commands() as commands:
            assert eventually(lambda: str(commands.info("replication")).count("'online'") == len(self._replicas))

    def kill(self) -> None:
        """Kill the server with signal 9 and start it again."""
        self._server.terminate()
        self._server = start_store(self._directory, self.port, durable=True, config=_REPLICATION)

    def hang(self) -> None:
        """Suspend the server for a second. It then answers everything that was sent meanwhile."""
        with suspended(process_of(self._server)):
            time.sleep(1)

    def hang_replicas(self) -> None:
        """Suspend the replicas for half a second."""
        with contextlib.ExitStack() as stack:
            for replica in self._replicas:
                stack.enter_context(suspended(process_of(replica)))
            time.sleep(0.5)

    def cut(self) -> None:
        """Close all connections."""
        with self._commands() as commands:
            for kind in ("normal", "pubsub"):
                commands.client_kill_filter(_type=kind)

    def fill(self) -> None:
        """Leave the server no memory for writes."""
        with self._commands() as commands:
            commands.config_set("maxmemory", 1)
            time.sleep(0.5)
            commands.config_set("maxmemory", 0)

    def demote(self) -> None:
        """Make the server a replica without its primary."""
        with self._commands() as commands:
            commands.config_set("replica-serve-stale-data", "no")
            commands.replicaof("127.0.0.1", "1")
            time.sleep(0.5)
            commands.replicaof("NO", "ONE")

    def stop(self) -> None:
        """Stop the servers."""
        for server in (self._server, *self._replicas):
            server.stop()

    def _commands(self) -> "redis.Redis":
        return redis.Redis(port=self.port)


def prove(directory: Path, operations: int, seconds_between_faults: float, min_replicas: int = 0) -> Proof:
    """Run that many operations on two workers, while Redis fails in one way after the other.

    Redis has `min_replicas` replicas, and all of them confirm each write.
    """
    store = FailingRedis(directory, min_replicas)
    failures = 0
    injection: asyncio.Future[None] | None = None

    async def inject_failures() -> None:
        nonlocal failures, injection
        for fail in store.failures():
            await asyncio.to_thread(store.wait_for_replicas)
            await asyncio.sleep(seconds_between_faults)
            failures += 1
            injection = asyncio.ensure_future(asyncio.to_thread(fail))
            await asyncio.shield(injection)

    async def work(port: int) -> tuple[Load, dict[str, list[dict[str, Any]]]]:
        load = Load()
        tenants = [f"tenant-{n % TENANTS}" for n in range(CLIENTS)]
        registers = [(tenant, ServiceRegister(port, tenant, f"client-{n}")) for n, tenant in enumerate(tenants)]
        async with in_background(inject_failures):
            share = operations // CLIENTS
            await asyncio.gather(*(load.client(tenant, each, share, n) for n, (tenant, each) in enumerate(registers)))
        if injection is not None:
            await injection
        changes = {tenant: await register.changes() for tenant, register in registers[:TENANTS]}
        for _, register in registers:
            await register.close()
        return load, changes

    settings = {"WEB_CONCURRENCY": "2", "REDIS_TIMEOUT": "0.5", "HISTORY_LENGTH": "100000", "LOG_LEVEL": "WARNING"}
    settings |= {"REDIS_MIN_REPLICAS": str(min_replicas), "LOG_FORMAT": "json"}
    began = time.monotonic()
    try:
        with Service(directory / "log", f"redis://127.0.0.1:{store.port}/0", **settings) as service:
            load, changes = asyncio.run(work(service.port))
    finally:
        store.stop()
    lines = audit_lines((directory / "log").read_text())
    histories = {tenant: [Entry.of(each) for each in history] for tenant, history in changes.items()}
    violations = load.violations(histories)
    violations += audit_violations(lines, changes, itertools.chain(*load.operations.values()))
    unknown = sum(line["outcome"] == "unknown" for line in lines)
    return Proof(load, failures, len(lines), unknown, violations, time.monotonic() - began)


def main() -> None:
    """Run the long proof from the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seconds-between-faults", type=float, default=1.0)
    parser.add_argument("--min-replicas", type=int, default=0)
    arguments = parser.parse_args()
    seconds = arguments.seconds_between_faults
    with tempfile.TemporaryDirectory() as directory:
        proof = prove(Path(directory), arguments.operations, seconds, arguments.min_replicas)
    counts = ", ".join(f"{proof.load.count(outcome)} {outcome}" for outcome in ("answered", "conflict", "unknown"))
    print(f"{proof.load.total} operations, {proof.seconds:.0f} s: {counts}; the store failed {proof.failures} times")  # noqa: T201
    print(f"{proof.audit_lines} lines in the audit log, {proof.unknown_lines} of them unknown")  # noqa: T201
    raise SystemExit("\n".join(proof.violations) or None)


if __name__ == "__main__":
    main()
