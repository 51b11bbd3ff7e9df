"""The proof of the guarantees: clients at work on the real service while its store fails, and what they saw.

`python -m tests.proof --operations 100000` is the long one; the suite has a short one.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.clients import Load, ServiceRegister, meanwhile
from tests.processes import Service, process_of, start_store, suspended

TENANTS = 4
CLIENTS = 16  # four for each tenant


@dataclass
class Proof:
    """What came of it."""

    load: Load
    broken: int
    faults: list[str]
    seconds: float


class Breakable:
    """A store, and the ways in which it fails, each for a second at the most."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server = start_store(directory, durable=True)
        self.port = self._server.port

    def kill(self) -> None:
        """With signal 9, and starts it again."""
        self._server.terminate()
        self._server = start_store(self._directory, self.port, durable=True)

    def hang(self) -> None:
        """It takes what is sent, and answers a second later."""
        with suspended(process_of(self._server)):
            time.sleep(1)

    def cut(self) -> None:
        """Closes all connections."""
        with self._commands() as commands:
            for kind in ("normal", "pubsub"):
                commands.client_kill_filter(_type=kind)

    def fill(self) -> None:
        """There is no room for a write."""
        with self._commands() as commands:
            commands.config_set("maxmemory", 1)
            time.sleep(0.5)
            commands.config_set("maxmemory", 0)

    def demote(self) -> None:
        """It is a replica that has lost its primary."""
        with self._commands() as commands:
            commands.config_set("replica-serve-stale-data", "no")
            commands.replicaof("127.0.0.1", "1")
            time.sleep(0.5)
            commands.replicaof("NO", "ONE")

    def stop(self) -> None:
        """For good."""
        self._server.stop()

    def _commands(self) -> "redis.Redis":
        return redis.Redis(port=self.port)


def prove(directory: Path, operations: int, seconds_between_faults: float) -> Proof:
    """Lets the clients do so many operations on two workers, while the store fails in one way after the other."""
    store = Breakable(directory / "store")
    broken = 0
    failing: asyncio.Future[None] | None = None

    async def break_again_and_again() -> None:
        nonlocal broken, failing
        for fault in itertools.cycle((store.kill, store.hang, store.cut, store.fill, store.demote)):
            await asyncio.sleep(seconds_between_faults)
            broken += 1
            failing = asyncio.ensure_future(asyncio.to_thread(fault))
            await asyncio.shield(failing)

    async def work(port: int) -> tuple[Load, list[str]]:
        load = Load()
        registers = [(f"tenant-{n % TENANTS}", ServiceRegister(port, f"tenant-{n % TENANTS}")) for n in range(CLIENTS)]
        async with meanwhile(break_again_and_again):
            share = operations // CLIENTS
            await asyncio.gather(*(load.client(tenant, each, share, n) for n, (tenant, each) in enumerate(registers)))
        if failing is not None:
            await failing
        histories = {tenant: await register.history() for tenant, register in registers[:TENANTS]}
        for _, register in registers:
            await register.close()
        return load, load.faults(histories)

    settings = {"WEB_CONCURRENCY": "2", "REDIS_TIMEOUT": "0.5", "HISTORY_LENGTH": "100000", "LOG_LEVEL": "WARNING"}
    began = time.monotonic()
    try:
        with Service(directory / "log", f"redis://127.0.0.1:{store.port}/0", **settings) as service:
            load, faults = asyncio.run(work(service.port))
    finally:
        store.stop()
    return Proof(load, broken, faults, time.monotonic() - began)


def main() -> None:
    """The long proof, from the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seconds-between-faults", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        proof = prove(Path(directory), arguments.operations, arguments.seconds_between_faults)
    counts = ", ".join(f"{proof.load.count(outcome)} {outcome}" for outcome in ("answered", "refused", "unknown"))
    print(f"{proof.load.total} operations, {proof.seconds:.0f} s: {counts}; the store failed {proof.broken} times")  # noqa: T201
    raise SystemExit("\n".join(proof.faults) or None)


if __name__ == "__main__":
    main()
