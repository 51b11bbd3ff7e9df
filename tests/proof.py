"""Proof of the guarantees: clients use the real service while Redis fails, and a checker reads what they saw.

`python -m tests.proof --operations 100000` runs the long proof. The test suite runs a short one.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.clients import Load, ServiceRegister, in_background
from tests.processes import Service, process_of, start_store, suspended

TENANTS = 4
CLIENTS = 16  # four for each tenant


@dataclass
class Proof:
    """The result of a proof."""

    load: Load
    failures: int
    violations: list[str]
    seconds: float


class FailingRedis:
    """A Redis server and the ways in which it fails. Each failure lasts at most one second."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server = start_store(directory, durable=True)
        self.port = self._server.port

    def kill(self) -> None:
        """Kill the server with signal 9 and start it again."""
        self._server.terminate()
        self._server = start_store(self._directory, self.port, durable=True)

    def hang(self) -> None:
        """Suspend the server for a second. It then answers everything that was sent meanwhile."""
        with suspended(process_of(self._server)):
            time.sleep(1)

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
        """Stop the server."""
        self._server.stop()

    def _commands(self) -> "redis.Redis":
        return redis.Redis(port=self.port)


def prove(directory: Path, operations: int, seconds_between_faults: float) -> Proof:
    """Run that many operations on two workers, while Redis fails in one way after the other."""
    store = FailingRedis(directory / "store")
    failures = 0
    injection: asyncio.Future[None] | None = None

    async def inject_failures() -> None:
        nonlocal failures, injection
        for fail in itertools.cycle((store.kill, store.hang, store.cut, store.fill, store.demote)):
            await asyncio.sleep(seconds_between_faults)
            failures += 1
            injection = asyncio.ensure_future(asyncio.to_thread(fail))
            await asyncio.shield(injection)

    async def work(port: int) -> tuple[Load, list[str]]:
        load = Load()
        registers = [(f"tenant-{n % TENANTS}", ServiceRegister(port, f"tenant-{n % TENANTS}")) for n in range(CLIENTS)]
        async with in_background(inject_failures):
            share = operations // CLIENTS
            await asyncio.gather(*(load.client(tenant, each, share, n) for n, (tenant, each) in enumerate(registers)))
        if injection is not None:
            await injection
        histories = {tenant: await register.history() for tenant, register in registers[:TENANTS]}
        for _, register in registers:
            await register.close()
        return load, load.violations(histories)

    settings = {"WEB_CONCURRENCY": "2", "REDIS_TIMEOUT": "0.5", "HISTORY_LENGTH": "100000", "LOG_LEVEL": "WARNING"}
    began = time.monotonic()
    try:
        with Service(directory / "log", f"redis://127.0.0.1:{store.port}/0", **settings) as service:
            load, violations = asyncio.run(work(service.port))
    finally:
        store.stop()
    return Proof(load, failures, violations, time.monotonic() - began)


def main() -> None:
    """Run the long proof from the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seconds-between-faults", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        proof = prove(Path(directory), arguments.operations, arguments.seconds_between_faults)
    counts = ", ".join(f"{proof.load.count(outcome)} {outcome}" for outcome in ("answered", "conflict", "unknown"))
    print(f"{proof.load.total} operations, {proof.seconds:.0f} s: {counts}; the store failed {proof.failures} times")  # noqa: T201
    raise SystemExit("\n".join(proof.violations) or None)


if __name__ == "__main__":
    main()
