"""Clients of simulated workers: callers that sometimes leave, and listeners that come back."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from app.errors import StoreError
from app.feed.feed import Feed
from app.feed.subscriber import Subscriber
from app.model import ChangeEvent, EventId, version_of
from app.store.redis_store import RedisStore
from tests.clients import Left, Load, StoreRegister
from tests.simulation.loop import Result


@dataclass
class Worker:
    """One worker process on `host`, and the operations of its clients."""

    host: str
    store: RedisStore
    feed: Feed
    load: Load

    def answered(self, name: str) -> bool:
        """Return True if a write with this name was answered here."""
        return name in self._answered

    @cached_property
    def _answered(self) -> frozenset[str]:
        operations = itertools.chain(*self.load.operations.values())
        return frozenset(each.name for each in operations if each.outcome == "answered")


class ImpatientRegister(StoreRegister):
    """A register of one tenant whose caller leaves in the middle of one operation in twenty."""

    def __init__(self, store: RedisStore, tenant: str, chance: random.Random) -> None:
        super().__init__(store, tenant)
        self._chance = chance

    async def read(self) -> tuple[int, bool]:
        return await self._unless_left(super().read())

    async def write(self, name: str, enabled: bool, expected: int | None) -> tuple[int, bool]:
        return await self._unless_left(super().write(name, enabled, expected))

    async def _unless_left(self, operation: Awaitable[Result]) -> Result:
        if self._chance.random() > 0.05:
            return await operation
        try:
            return await asyncio.wait_for(operation, self._chance.uniform(0, 0.012))
        except TimeoutError:
            raise Left from None


@dataclass(frozen=True, slots=True)
class Heard:
    """An event that a listener got: the version, the name of the write that made it ("" for version 0)."""

    time: float
    version: int
    name: str
    is_reset: bool
    stream: Literal["new", "resumed", "continued"]  # if it is the first event of a stream, and if that was resumed


@dataclass
class Listener:
    """A client that listens to one tenant. It leaves now and then, and resumes after its last event."""

    tenant: str
    chance: random.Random
    events: list[Heard] = field(default_factory=list)
    ended: int = 0  # how many streams the worker has ended
    _last: ChangeEvent | None = None
    is_new: bool = True  # the stream has had no event yet

    async def listen(self, workers: Sequence[Worker]) -> None:
        """Listen until cancelled, at one worker after the other."""
        while True:
            worker = self.chance.choice(workers)
            try:
                subscriber = await worker.feed.subscribe(self.tenant, _resume_after(self._last))
            except StoreError:
                await asyncio.sleep(self.chance.uniform(0.05, 1))
                continue
            self.is_new = True
            try:
                await self._hear(subscriber)
            finally:
                subscriber.end()
            await asyncio.sleep(self.chance.uniform(0.01, 0.3))

    async def _hear(self, subscriber: Subscriber) -> None:
        """Hear events until the stream ends or the client leaves."""
        loop = asyncio.get_running_loop()
        stays = self.chance.uniform(0.1, 5) if self.chance.random() < 0.7 else 60.0
        try:
            async with asyncio.timeout(stays):
                async for event in subscriber:
                    self._note(event, loop.time())
                    if self.chance.random() < 0.05:
                        await asyncio.sleep(self.chance.uniform(0, 0.5))  # a slow client
        except TimeoutError:
            return
        except StoreError:
            pass
        self.ended += 1

    def _note(self, event: ChangeEvent, now: float) -> None:
        name = "" if event.change is None else event.change.author.request_id
        stream: Literal["new", "resumed", "continued"] = "new" if self._last is None else "resumed"
        if not self.is_new:
            stream = "continued"
        self.events.append(Heard(now, version_of(event.change), name, event.is_reset, stream))
        self._last, self.is_new = event, False


def _resume_after(event: ChangeEvent | None) -> EventId | None:
    """Return what a client sends as Last-Event-ID after `event`."""
    return None if event is None else EventId.of(event.change)
