"""One run: a seed decides what the clients do, what goes wrong, and in which order everything happens."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import random
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from app.feed.feed import Feed
from app.logs import AUDIT_LOGGER
from app.store.redis_store import RedisStore
from app.store.topology import Topology
from tests.audit import Fields, audit_violations
from tests.clients import Load
from tests.register import Loss, violations
from tests.simulation.clients import ImpatientRegister, Listener, Worker
from tests.simulation.deployment import Deployment
from tests.simulation.journal import Journal, Stored
from tests.simulation.log import changes_of
from tests.simulation.loop import SimulatedLoop, StuckError
from tests.simulation.network import Network, Rates
from tests.simulation.rules import availability_violations, listener_violations

OPERATIONS: Final = 30  # of one client
CLIENTS: Final = 3  # of each tenant at each worker
LISTENERS: Final = 2  # of each tenant
TIMEOUT: Final = 0.5  # in seconds, of the store's operations
# In seconds: how long after the last fault the listeners must have heard everything.
CALM: Final = 10.0
HISTORY_LENGTH: Final = 100_000


@dataclass(frozen=True)
class Variant:
    """The product's classes, or a negative control in the place of one of them."""

    store: Callable[[Topology, float, int, int], RedisStore] = RedisStore
    feed: Callable[[RedisStore], Feed] = Feed
    topology: Callable[[Topology], Topology] = lambda topology: topology


PRODUCT: Final = Variant()


@dataclass
class Result:
    """The result of one run. Runs with equal digests were equal."""

    seed: int
    violations: list[str] = field(default_factory=list)
    digest: str = ""
    operations: int = 0
    events: int = 0
    ended_streams: int = 0
    virtual_seconds: float = 0.0


Deploy = Callable[[Network, random.Random], Deployment]


class Simulation:
    """One run of `variant` on the servers that `deploy` makes."""

    def __init__(
        self, seed: int, deploy: Deploy, variant: Variant = PRODUCT, trace: Callable[[str], object] | None = None
    ) -> None:
        self._seed = seed
        self._loop = SimulatedLoop(seed)
        self._journal = Journal(trace)
        chance = self._chance("faults")
        self._rates = Rates.choose(chance)
        self._network = Network(self._loop, seed, self._rates, self._journal)
        self._deployment = deploy(self._network, chance)
        self._variant = variant
        self._is_over = False
        self._audit_lines: list[Fields] = []
        self._workers: list[Worker] = []
        self._listeners = [
            Listener(tenant, self._chance(f"listener {tenant} {number}"))
            for tenant in self._deployment.tenants
            for number in range(LISTENERS)
        ]

    def _chance(self, purpose: str) -> random.Random:
        return random.Random(f"{purpose} {self._seed}")

    def run(self) -> Result:
        """Run, and check the rules."""
        result = Result(self._seed)
        random.seed(self._seed)  # for the product's own random numbers
        with _unexpected_errors(result.violations), _audit_log(self._audit_lines):
            try:
                self._loop.run(self._main())
            except StuckError as error:
                result.violations.append(f"the run is stuck: {error}")
            except Exception as error:  # one that clients do not expect
                result.violations.append(f"raised: {''.join(traceback.format_exception(error))}")
        result.violations += [*self._loop.errors, *self._journal.faults]
        if not result.violations:
            result.violations += self._violations()
        result.operations = sum(worker.load.total for worker in self._workers)
        result.events = sum(len(listener.events) for listener in self._listeners)
        result.ended_streams = sum(listener.ended for listener in self._listeners)
        result.virtual_seconds = self._loop.time()
        history = [worker.load.operations for worker in self._workers], [each.events for each in self._listeners]
        result.digest = hashlib.sha256(f"{history} {self._loop.steps} {result.violations}".encode()).hexdigest()[:16]
        return result

    async def _main(self) -> None:
        deployment, variant = self._deployment, self._variant
        first = Load()
        for host in deployment.hosts:
            topology = variant.topology(deployment.topology(host))
            store = variant.store(topology, TIMEOUT, HISTORY_LENGTH, deployment.min_replicas)
            self._workers.append(Worker(host, store, variant.feed(store), Load(names=first.names)))
        failing = asyncio.create_task(self._fail())
        listening = [asyncio.create_task(listener.listen(self._workers)) for listener in self._listeners]
        await asyncio.gather(*self._clients())
        self._is_over = True
        await failing
        self._rates.clear()
        await asyncio.sleep(CALM)
        for task in listening:
            task.cancel()
        for ended in await asyncio.gather(*listening, return_exceptions=True):
            if isinstance(ended, Exception):  # one that listeners do not expect
                raise ended
        for worker in self._workers:
            await worker.feed.close()
            await worker.store.close()
        await asyncio.sleep(1)

    def _clients(self) -> "Iterator[asyncio.Future[None]]":
        deployment = self._deployment
        for worker in self._workers:
            for tenant in deployment.tenants:
                for number in range(CLIENTS):
                    name = f"{worker.host} {tenant} {number}"
                    register = ImpatientRegister(worker.store, tenant, self._chance(f"leaving {name}"))
                    client = worker.load.client(
                        tenant, register, OPERATIONS, f"client {name} {self._seed}", deployment.pause
                    )
                    yield asyncio.ensure_future(client)

    async def _fail(self) -> None:
        chance = self._chance("pauses")
        while not self._is_over:
            await asyncio.sleep(chance.expovariate(1 / self._deployment.failure_pause))
            await self._deployment.fail()

    def _violations(self) -> Iterator[str]:
        journal = self._journal
        for tenant in self._deployment.tenants:
            history = self._history(tenant)
            kept = {each.change_id for each in history}
            lost = [each for each in journal.stored.values() if each.tenant == tenant and each.change_id not in kept]
            excused = (
                set()
                if self._deployment.min_replicas
                else {each.entry.name for each in lost if each.change_id in journal.dropped}
            )
            loss = Loss([each.entry for each in lost], excused, self._deployment.unsettled)
            operations = [each for worker in self._workers for each in worker.load.operations[tenant]]
            yield from violations(operations, [each.entry for each in history], loss)
            for listener in self._listeners:
                if listener.tenant == tenant:
                    yield from listener_violations(listener, journal, history, self._deployment.unsettled)
        for worker in self._workers:
            for tenant, operations in worker.load.operations.items():
                yield from availability_violations(operations, worker.host, tenant, journal)
        yield from self._audit_violations()
        yield from self._deployment.violations(self._workers)
        open_connections = sum(server.sessions for server in self._deployment.servers)
        if open_connections:
            yield f"{open_connections} connections are still open at the end"

    def _audit_violations(self) -> Iterator[str]:
        """Compare the audit log with every change that was ever stored, also if it was lost later."""
        stored: dict[str, list[Fields]] = {}
        for each in self._journal.stored.values():
            fields = {"version": each.entry.version, "enabled": each.entry.enabled, "request_id": each.entry.name}
            stored.setdefault(each.tenant, []).append({"changed_by": "client", "reason": None, **fields})
        loads = [worker.load.operations.values() for worker in self._workers]
        operations = itertools.chain.from_iterable(itertools.chain.from_iterable(loads))
        yield from audit_violations(self._audit_lines, stored, operations)

    def _history(self, tenant: str) -> list[Stored]:
        """Return the changes of a tenant that are left at the end, oldest first."""
        ids = [json.loads(value)["id"] for value in changes_of(tenant, self._deployment.survivor(tenant))]
        return [self._journal.stored[change_id] for change_id in ids]


@contextlib.contextmanager
def _audit_log(lines: list[Fields]) -> Iterator[None]:
    """Add the fields of each line of the audit log to `lines`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names = ("tenant", "enabled", "version", "outcome", "changed_by", "reason", "request_id")
            lines.append({name: record.__dict__[name] for name in names if name in record.__dict__})

    logger, handler = logging.getLogger(AUDIT_LOGGER), Handler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def _unexpected_errors(violations: list[str]) -> Iterator[None]:
    """Add each traceback that the product logs to `violations`. Its other log lines are dropped."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                violations.append(f"logged: {record.getMessage()}: {record.exc_info[1]!r}")

    logger, handler = logging.getLogger("app"), Handler()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
