"""The proof of the guarantees: clients at work on the real service while its store is killed, and what they saw.

`python -m tests.proof --operations 100000` is the long one; the suite has a short one.
"""

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.clients import Run, ServiceRegister, meanwhile
from tests.processes import Service, start_store

TENANTS = 4
CLIENTS = 16  # four for each tenant


@dataclass
class Proof:
    """What came of it."""

    run: Run
    kills: int
    faults: list[str]
    seconds: float


def prove(directory: Path, operations: int, seconds_between_kills: float) -> Proof:
    """Lets the clients do so many operations on two workers, killing the store (-9) and starting it again meanwhile."""
    store = start_store(directory / "store", durable=True)
    kills = 0

    async def kill_again_and_again() -> None:
        nonlocal store, kills
        port = store.port
        while True:
            await asyncio.sleep(seconds_between_kills)
            await asyncio.to_thread(store.terminate)
            kills += 1
            store = await asyncio.to_thread(start_store, directory / "store", port, durable=True)

    async def work(port: int) -> tuple[Run, list[str]]:
        run = Run()
        registers = [(f"tenant-{n % TENANTS}", ServiceRegister(port, f"tenant-{n % TENANTS}")) for n in range(CLIENTS)]
        async with meanwhile(kill_again_and_again):
            share = operations // CLIENTS
            await asyncio.gather(*(run.client(tenant, each, share, n) for n, (tenant, each) in enumerate(registers)))
        histories = {tenant: await register.history() for tenant, register in registers[:TENANTS]}
        for _, register in registers:
            await register.close()
        return run, run.faults(histories)

    settings = {"WEB_CONCURRENCY": "2", "REDIS_TIMEOUT": "0.5", "HISTORY_LENGTH": "100000", "LOG_LEVEL": "WARNING"}
    began = time.monotonic()
    try:
        with Service(directory / "log", f"redis://127.0.0.1:{store.port}/0", **settings) as service:
            run, faults = asyncio.run(work(service.port))
    finally:
        store.stop()
    return Proof(run, kills, faults, time.monotonic() - began)


def main() -> None:
    """The long proof, from the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seconds-between-kills", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        proof = prove(Path(directory), arguments.operations, arguments.seconds_between_kills)
    counts = ", ".join(f"{proof.run.count(outcome)} {outcome}" for outcome in ("answered", "refused", "unknown"))
    print(f"{proof.run.total} operations in {proof.seconds:.0f} s: {counts}; the store was killed {proof.kills} times")  # noqa: T201
    raise SystemExit("\n".join(proof.faults) or None)


if __name__ == "__main__":
    main()
