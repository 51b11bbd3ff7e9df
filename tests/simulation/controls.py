"""Negative controls: each breaks one promise. The rules must find it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from app.errors import ConcurrentUpdate, OutcomeUnknown, StoreError
from app.feed.feed import Feed
from app.model import Author, Change, Expected, Setting, version_of
from app.store.audit import log_change
from app.store.connections import DRIVER_ERRORS, ServerConnections
from app.store.pipeline import PipelineWork, T
from app.store.redis_store import RedisStore, _Attempt
from app.store.redis_url import HostPort
from app.store.topology import Topology
from tests.simulation.cluster import Cluster, ClusterOptions
from tests.simulation.cluster_node import Node
from tests.simulation.one_server import OneServer
from tests.simulation.run import PRODUCT, Deploy, Simulation, Variant
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.sentinels import Sentinel, SentinelOptions, Sentinels
from tests.simulation.server import Server
from tests.simulation.session import Session


class UnwatchingServer(Server):
    """Executes transactions even if a watched key was modified."""

    def is_modified(self, watched: dict[bytes, int]) -> bool:
        return False


class WatchingServer(Server):
    """Ignores UNWATCH, as if the store did not send it."""

    def unwatch(self, session: Session) -> bytes:
        return b"OK"


class UnconditionalStore(RedisStore):
    """Ignores the version that a change expects."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        return await super().change(tenant, enabled, author)


class CachingStore(RedisStore):
    """Returns a setting again for 20 ms."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._cache: dict[str, tuple[float, Setting]] = {}

    async def current(self, tenant: str) -> Setting:
        now = asyncio.get_running_loop().time()
        if tenant not in self._cache or self._cache[tenant][0] < now - 0.02:
            self._cache[tenant] = now, await super().current(tenant)
        return self._cache[tenant][1]


class OptimisticLookup(RedisStore):
    """Says that a change was stored if the reply to its EXEC was lost."""

    async def _find_sent_change(self, tenant: str, sent: Change, cause: Exception) -> Setting:
        return sent.setting


class PessimisticLookup(RedisStore):
    """Says that a change was a conflict if the reply to its EXEC was lost."""

    async def _find_sent_change(self, tenant: str, sent: Change, cause: Exception) -> Setting:
        raise ConcurrentUpdate(version_of(sent) - 1)


class VersionLookup(RedisStore):
    """Looks up the version instead of the change."""

    async def _find_sent_change(self, tenant: str, sent: Change, cause: Exception) -> Setting:
        try:
            history = await self.history(tenant, 1, version_of(sent) + 1)
        except StoreError as error:
            raise OutcomeUnknown("not looked up") from error
        if not any(version_of(change) == version_of(sent) for change in history):
            raise OutcomeUnknown("no such version") from cause
        return sent.setting


class NoLookup(RedisStore):
    """Leaves every outcome unknown."""

    async def _find_sent_change(self, tenant: str, sent: Change, cause: Exception) -> Setting:
        raise OutcomeUnknown("not looked up") from cause


class ForgetfulAuditor(RedisStore):
    """Logs a change only if its caller gets an answer."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        attempt = _Attempt(tenant, enabled, author, expected)
        setting = await self._change(attempt)
        if attempt.sent is not None:
            log_change(tenant, attempt.sent, "stored")
        return setting


class UnconfirmedStore(RedisStore):
    """Answers a write before a replica has it."""

    def __init__(self, topology: Topology, timeout: float, history_length: int, min_replicas: int) -> None:
        super().__init__(topology, timeout, history_length)


class WrappedTopology:
    """A `Topology` that passes everything on to another one."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    async def read(self, key: str, limit: float) -> bytes | None:
        return await self._topology.read(key, limit)

    async def run(self, key: str, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        return await self._topology.run(key, work, fresh=fresh, writes=writes)

    async def check_reads(self, keys: Sequence[str]) -> None:
        await self._topology.check_reads(keys)

    async def servers(self) -> tuple[Sequence[ServerConnections], Sequence[HostPort]]:
        return await self._topology.servers()

    def subscribe(self, channel: str, limit: float) -> AbstractAsyncContextManager[AsyncIterator[bytes | None]]:
        return self._topology.subscribe(channel, limit)

    async def close(self) -> None:
        await self._topology.close()


class RetryingTopology(WrappedTopology):
    """Sends a transaction again if its connection breaks."""

    async def run(self, key: str, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        try:
            return await super().run(key, work, fresh=fresh, writes=writes)
        except DRIVER_ERRORS:
            return await super().run(key, work, fresh=fresh, writes=writes)


class LateJoiningTopology(WrappedTopology):
    """Lets a read share a round trip that has already begun."""

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        self._reads: dict[str, asyncio.Future[bytes | None]] = {}

    async def read(self, key: str, limit: float) -> bytes | None:
        if key not in self._reads or self._reads[key].done():
            self._reads[key] = asyncio.ensure_future(super().read(key, limit))
            self._reads[key].add_done_callback(asyncio.Future.exception)  # its caller may have left
        return await asyncio.shield(self._reads[key])


class ForgetfulFeed(Feed):
    """Does not read what it missed while it had no subscription."""

    async def _catch_up(self) -> None:
        pass


class BoastfulSentinel(Sentinel):
    """Reports a higher epoch, the older its configuration is."""

    def config_epoch(self) -> int:
        return 1000 - self.epoch


class BoastfulNode(Node):
    """Reports a higher epoch, the older its configuration is."""

    def current_epoch(self) -> int:
        return 1000 - super().current_epoch()


@dataclass(frozen=True)
class Control:
    """A broken variant, or the product on broken servers. `finds` is a part of what the rule says that finds it.

    It is found within `seeds` seeds.
    """

    finds: str
    variant: Variant = PRODUCT
    deploy: Deploy = SCENARIOS["server"]
    seeds: int = 50


_OLDER: Final = "saw an older version"
_RIVAL: Final = "without a rival write"
_UNDISTURBED: Final = "although nothing was disturbed"
CONTROLS: Final = {
    "no WATCH": Control("was lost", deploy=partial(OneServer, UnwatchingServer, ["always"])),
    "UNWATCH missing": Control(_RIVAL, deploy=partial(OneServer, WatchingServer, ["always"])),
    "retried EXEC": Control("was made by", Variant(topology=RetryingTopology)),
    "lookup says stored": Control(_OLDER, Variant(store=OptimisticLookup)),
    "lookup says conflict": Control(_RIVAL, Variant(store=PessimisticLookup)),
    "lookup by version": Control("neither its expected version nor its own change", Variant(store=VersionLookup)),
    "lookup removed": Control("only one connection was cut", Variant(store=NoLookup)),
    "audit line only after an answer": Control("has no line", Variant(store=ForgetfulAuditor)),
    "cached reads": Control(_OLDER, Variant(store=CachingStore)),
    "read joins a batch already sent": Control(_OLDER, Variant(topology=LateJoiningTopology)),
    "listener without catch-up": Control("at the end, the last event", Variant(feed=ForgetfulFeed)),
    "If-Match ignored": Control("which expected another version", Variant(store=UnconditionalStore)),
    "no WAIT": Control("was lost", Variant(store=UnconfirmedStore), SCENARIOS["sentinel with a required replica"]),
    "older epoch believed": Control(
        "to a deposed primary",
        deploy=partial(Sentinels, SentinelOptions(majority=False, sentinel=BoastfulSentinel)),
    ),
    "older slots believed": Control(_UNDISTURBED, deploy=partial(Cluster, ClusterOptions(node=BoastfulNode))),
}


def first_seed(name: str) -> int | None:
    """Return the first seed that finds the control, or None if its number of seeds is not enough."""
    control = CONTROLS[name]
    for seed in range(1, control.seeds + 1):
        result = Simulation(seed, control.deploy, control.variant).run()
        if any(control.finds in violation for violation in result.violations):
            return seed
    return None
