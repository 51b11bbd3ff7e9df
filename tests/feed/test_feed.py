"""What listeners are told, on the store by hand: there each moment can be chosen."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StoreError
from app.feed.feed import Feed
from app.feed.subscriber import MAX_QUEUED_EVENTS, Subscriber
from app.model import Author, Change, ChangeEvent, Setting, version_of
from tests.conftest import Run
from tests.fake_store import FakeStore
from tests.waiting import PATIENCE

AUTHOR = Author("tester", "request-1")
ACME = "acme"


class Failing(FakeStore):
    """A store that fails while it is told to."""

    fails = False
    announces = True
    readings = 0
    hang: asyncio.Event | None = None
    no_answer: asyncio.Event | None = None

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        self.readings += 1
        await asyncio.sleep(0)
        if self.hang is not None:
            await self.hang.wait()
        if self.fails:
            raise StoreError("out of reach")
        return await super().history(tenant, limit, before)

    @contextlib.asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[str]]:
        if not self.announces:
            raise StoreError("out of reach")
        if self.no_answer is not None:
            await self.no_answer.wait()
        async with super().announcements() as tenants:
            yield tenants


class World:
    """A store with a feed on it."""

    def __init__(self, history_length: int = 1000, patience: float = 15.0) -> None:
        self.store = Failing(history_length)
        self.feed = Feed(self.store, retry=0.001, max_outage=patience)

    async def flip(self, times: int = 1, tenant: str = ACME) -> None:
        for _ in range(times):
            current = await self.store.current(tenant)
            await self.store.change(tenant, not current.enabled, AUTHOR)

    def newest(self) -> Change | None:
        return self.store.changes[ACME][-1] if ACME in self.store.changes else None

    def rewrite(self, *enabled: bool) -> None:
        """Gives the tenant another past, as a fail-over or a restored backup does. Nobody is told."""
        then = datetime(2020, 1, 1, tzinfo=UTC)
        settings = [Setting(value, version) for version, value in enumerate(enabled, start=1)]
        self.store.changes[ACME] = [Change(each, then, Author("other", "request-2")) for each in settings]


async def take(subscriber: Subscriber, number: int) -> list[ChangeEvent]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(subscriber) for _ in range(number)]


async def versions(subscriber: Subscriber, number: int) -> list[int]:
    events = await take(subscriber, number)
    assert not any(event.is_reset for event in events)
    return [version_of(event.change) for event in events]


async def is_silent(subscriber: Subscriber) -> bool:
    """Whether there is nothing to hear, once all that is under way has arrived."""
    for _ in range(100):
        await asyncio.sleep(0)
    waiting = asyncio.ensure_future(anext(subscriber))
    for _ in range(100):
        await asyncio.sleep(0)
    return waiting.cancel()


async def has_ended(subscriber: Subscriber) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await anext(subscriber, None) is None


def test_first_comes_what_stands_then_each_change(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        first = await world.feed.subscribe(ACME, after=None)
        assert await take(first, 1) == [ChangeEvent(None)]
        await world.flip(3)
        second = await world.feed.subscribe(ACME, after=None)
        assert await versions(first, 3) == [1, 2, 3]
        await world.flip()
        assert await versions(second, 2) == [3, 4]
        assert await versions(first, 1) == [4]
        assert await is_silent(first)
        await world.feed.close()

    run(subscribe())


def test_a_listener_hears_only_of_its_tenant(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        subscriber = await world.feed.subscribe(ACME, after=0)
        await world.flip(tenant="other")
        assert await is_silent(subscriber)
        await world.feed.close()

    run(subscribe())


@pytest.mark.parametrize("changes", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("missed", [0, 1, 100, 101, 250])
def test_whoever_resumes_hears_all_that_was_missed(run: Run, changes: int, missed: int) -> None:
    async def subscribe() -> None:
        world = World()
        await world.flip(changes + missed)
        subscriber = await world.feed.subscribe(ACME, after=changes)
        await world.flip()
        assert await versions(subscriber, missed + 1) == list(range(changes + 1, changes + missed + 2))
        assert await is_silent(subscriber)
        await world.feed.close()

    run(subscribe())


@pytest.mark.parametrize(("after", "is_told"), [(0, False), (1, False), (4, False), (5, True), (6, True)])
def test_whoever_resumes_before_what_the_history_has_is_told_what_stands(run: Run, after: int, is_told: bool) -> None:
    async def subscribe() -> None:
        world = World(history_length=3)
        await world.flip(8)
        subscriber = await world.feed.subscribe(ACME, after=after)
        if is_told:
            assert await versions(subscriber, 8 - after) == list(range(after + 1, 9))
        else:
            assert await take(subscriber, 1) == [ChangeEvent(world.newest(), is_reset=True)]
        await world.flip()
        assert await versions(subscriber, 1) == [9]
        await world.feed.close()

    run(subscribe())


@pytest.mark.parametrize("stands", [0, 1, 2])
def test_whoever_resumes_behind_what_stands_is_told_what_stands(run: Run, stands: int) -> None:
    async def subscribe() -> None:
        world = World()
        await world.flip(stands)
        subscriber = await world.feed.subscribe(ACME, after=7)
        assert await take(subscriber, 1) == [ChangeEvent(world.newest(), is_reset=True)]
        await world.flip()
        assert await versions(subscriber, 1) == [stands + 1]
        await world.feed.close()

    run(subscribe())


def test_what_was_announced_while_the_subscription_was_lost_is_caught_up_with(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        subscriber = await world.feed.subscribe(ACME, after=0)
        world.store.cut_subscriptions()
        await world.flip(250)
        assert await versions(subscriber, 250) == list(range(1, 251))
        await world.flip()
        assert await versions(subscriber, 1) == [251]
        await world.feed.close()

    run(subscribe())


@pytest.mark.parametrize("past", [[], [True], [True, False, True], [True, False, True, False], [False] * 3])
def test_whoever_heard_of_another_past_is_told_what_stands(run: Run, past: list[bool]) -> None:
    async def subscribe() -> None:
        world = World()
        await world.flip(3)
        subscribers = [await world.feed.subscribe(ACME, after=3) for _ in range(2)]
        world.rewrite(*past)
        if not past:
            world.store.changes.clear()
        world.store.cut_subscriptions()
        for subscriber in subscribers:
            assert await take(subscriber, 1) == [ChangeEvent(world.newest(), is_reset=True)]
        await world.flip()
        for subscriber in subscribers:
            assert await versions(subscriber, 1) == [len(past) + 1]
            assert await is_silent(subscriber)
        await world.feed.close()

    run(subscribe())


@pytest.mark.parametrize("yields", range(12))
def test_a_first_change_in_the_middle_of_a_reading_is_a_change(run: Run, yields: int) -> None:
    async def subscribe() -> None:
        world = World()
        subscriber = await world.feed.subscribe(ACME, after=0)
        world.store.announce(ACME)
        for _ in range(yields):
            await asyncio.sleep(0)
        await world.flip()
        assert await versions(subscriber, 1) == [1]
        await world.feed.close()

    run(subscribe())


def test_an_announcement_without_a_change_tells_nobody_anything(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        await world.flip()
        subscriber = await world.feed.subscribe(ACME, after=1)
        world.store.announce(ACME)
        world.store.announce("nobody")
        assert await is_silent(subscriber)
        await world.feed.close()

    run(subscribe())


def test_what_a_listener_does_not_take_is_not_kept_for_it_but_read_later(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        slow, quick = [await world.feed.subscribe(ACME, after=0) for _ in range(2)]
        for version in range(1, 301):
            await world.flip()
            assert await versions(quick, 1) == [version]
        assert len(slow._events) == MAX_QUEUED_EVENTS
        assert await versions(slow, 300) == list(range(1, 301))
        await world.feed.close()

    run(subscribe())


def test_a_wait_that_is_cancelled_loses_nothing(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        subscriber = await world.feed.subscribe(ACME, after=0)
        for version in range(1, 20):
            waiting = asyncio.ensure_future(anext(subscriber))
            for _ in range(version):
                await asyncio.sleep(0)
            waiting.cancel()
            await world.flip()
            await asyncio.wait([waiting])
            heard = [version] if waiting.cancelled() else [version_of(waiting.result().change)]
            if waiting.cancelled():
                assert await versions(subscriber, 1) == heard
        await world.feed.close()

    run(subscribe())


def test_there_is_one_subscription_whoever_listens_and_none_without_listeners(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        subscribers = [await world.feed.subscribe(f"tenant-{n % 7}", after=None) for n in range(50)]
        assert world.store.subscriptions == 1
        for subscriber in subscribers:
            subscriber.end()
            subscriber.end()
        assert await has_ended(subscribers[0])
        await asyncio.sleep(0.01)
        assert world.store.subscriptions == 0
        again = await world.feed.subscribe(ACME, after=None)
        assert world.store.subscriptions == 1
        await world.feed.close()
        assert await has_ended(again)
        assert world.store.subscriptions == 0

    run(subscribe())


def test_whoever_listens_while_the_store_is_away_is_told_so_at_once(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        world.store.announces = False
        for _ in range(3):
            with pytest.raises(StoreError):
                await world.feed.subscribe(ACME, after=None)
        world.store.announces, world.store.fails = True, True
        for _ in range(3):
            with pytest.raises(StoreError):
                await world.feed.subscribe(ACME, after=None)
        world.store.fails = False
        assert await take(await world.feed.subscribe(ACME, after=None), 1) == [ChangeEvent(None)]
        await world.feed.close()

    run(subscribe())


def test_a_change_that_cannot_be_read_ends_the_tenants_listeners(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        subscriber = await world.feed.subscribe(ACME, after=0)
        other = await world.feed.subscribe("other", after=0)
        world.store.fails = True
        await world.flip()
        assert await has_ended(subscriber)
        world.store.fails = False
        await world.flip(tenant="other")
        assert await versions(other, 1) == [1]
        await world.feed.close()

    run(subscribe())


def test_listeners_are_sent_away_when_the_store_stays_away(run: Run) -> None:
    async def subscribe() -> None:
        world = World(patience=0.05)
        subscriber = await world.feed.subscribe(ACME, after=0)
        world.store.announces = False
        world.store.cut_subscriptions()
        assert await has_ended(subscriber)
        world.store.announces = True
        assert await take(await world.feed.subscribe(ACME, after=None), 1) == [ChangeEvent(None)]
        await world.feed.close()

    run(subscribe())


def test_patience_counts_from_the_loss(run: Run) -> None:
    async def subscribe() -> None:
        world = World(patience=1.0)
        subscriber = await world.feed.subscribe(ACME, after=0)
        await asyncio.sleep(1.5)
        world.store.cut_subscriptions()
        await world.flip()
        assert await versions(subscriber, 1) == [1]
        await world.feed.close()

    run(subscribe())


async def behind(world: World, number: int = 30) -> Subscriber:
    """A listener that has taken nothing of so many changes."""
    slow, quick = [await world.feed.subscribe(ACME, after=0) for _ in range(2)]
    for version in range(1, number + 1):
        await world.flip()
        assert await versions(quick, 1) == [version]
    return slow


def test_a_reset_that_comes_while_a_listener_catches_up_is_all_it_is_told(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        slow = await behind(world)
        assert await versions(slow, 16) == list(range(1, 17))
        real, reached, go = world.store.history, asyncio.Event(), asyncio.Event()

        async def held(tenant: str, limit: int, before: int | None = None) -> list[Change]:
            world.store.history = real  # type: ignore[method-assign]
            page = await real(tenant, limit, before)
            reached.set()
            await go.wait()
            return page

        world.store.history = held  # type: ignore[method-assign]
        waiting = asyncio.ensure_future(take(slow, 1))
        await reached.wait()
        world.rewrite(True)
        world.store.announce(ACME)
        for _ in range(50):
            await asyncio.sleep(0)
        go.set()
        assert await waiting == [ChangeEvent(world.newest(), is_reset=True)]
        assert await is_silent(slow)
        await world.feed.close()

    run(subscribe())


def test_a_listener_behind_a_store_that_lost_all_is_reset_once_and_then_waits(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        slow = await behind(world)
        world.store.changes.clear()  # FLUSHALL: no subscription is cut
        assert await versions(slow, 16) == list(range(1, 17))
        assert await take(slow, 1) == [ChangeEvent(None, is_reset=True)]
        before = world.store.readings
        assert await is_silent(slow)
        assert world.store.readings - before <= 3
        await world.flip()
        assert await versions(slow, 1) == [1]
        await world.feed.close()

    run(subscribe())


def test_whoever_comes_as_another_past_is_found_is_told_once(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        await world.flip(3)
        first = await world.feed.subscribe(ACME, after=3)
        world.rewrite(True)
        second = await world.feed.subscribe(ACME, after=None)
        assert await take(first, 1) == [ChangeEvent(world.newest(), is_reset=True)]
        assert await take(second, 1) == [ChangeEvent(world.newest())]
        assert await is_silent(second)
        await world.feed.close()

    run(subscribe())


def test_a_listener_that_gives_up_while_it_begins_takes_nobody_along(run: Run) -> None:
    async def subscribe() -> None:
        for yields in range(10):
            world = World()
            first, second = [asyncio.ensure_future(world.feed.subscribe(ACME, after=None)) for _ in range(2)]
            for _ in range(yields):
                await asyncio.sleep(0)
            first.cancel()
            assert await take(await second, 1) == [ChangeEvent(None)]
            await world.feed.close()

    run(subscribe())


def test_whoever_comes_while_the_last_listener_is_sent_away_is_refused(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        assert await is_silent(await world.feed.subscribe(ACME, after=0))
        world.store.hang, world.store.no_answer = asyncio.Event(), asyncio.Event()
        await world.flip()
        await asyncio.sleep(0.01)
        world.store.cut_subscriptions()
        await asyncio.sleep(0.01)
        coming = asyncio.ensure_future(world.feed.subscribe(ACME, after=0))
        await asyncio.sleep(0.01)
        world.store.fails = True
        world.store.hang.set()
        with pytest.raises(StoreError):
            async with asyncio.timeout(PATIENCE):
                await coming
        await world.feed.close()

    run(subscribe())


def test_whoever_waits_for_a_reading_that_fails_is_refused_with_it(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        other = await world.feed.subscribe("other", after=0)
        assert await is_silent(other)
        before = world.store.readings
        world.store.hang, world.store.fails = asyncio.Event(), True
        first, second = [asyncio.ensure_future(world.feed.subscribe(ACME, after=None)) for _ in range(2)]
        await asyncio.sleep(0.01)
        third = asyncio.ensure_future(world.feed.subscribe(ACME, after=None))
        await asyncio.sleep(0.01)
        world.store.hang.set()
        failed = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(each) for each in failed] == [StoreError] * 3
        assert world.store.readings == before + 1
        other.end()
        await world.feed.close()

    run(subscribe())


def test_a_store_that_does_not_say_in_time_what_stands_refuses(run: Run) -> None:
    async def subscribe() -> None:
        world = World()
        world.feed = Feed(world.store, limit=0.3)
        world.store.hang = asyncio.Event()
        with pytest.raises(StoreError):
            await world.feed.subscribe(ACME, after=None)
        world.store.hang.set()
        world.store.hang = None
        assert await take(await world.feed.subscribe(ACME, after=None), 1) == [ChangeEvent(None)]
        await world.feed.close()

    run(subscribe())


class ResumingSubscriber:
    """A client that resumes, and what it has heard so far."""

    def __init__(self, world: World, subscriber: Subscriber) -> None:
        self.world = world
        self.subscriber = subscriber
        self.heard = [0]

    async def resume(self) -> None:
        self.subscriber.end()
        self.subscriber = await self.world.feed.subscribe(ACME, after=self.heard[-1])

    async def hear(self, number: int) -> None:
        self.heard += await versions(self.subscriber, number)

    def missing(self) -> int:
        return version_of(self.world.newest()) - self.heard[-1]


async def act(reader: ResumingSubscriber, companion: Subscriber, action: str) -> None:
    match action:
        case "flip":
            await reader.world.flip()
        case "cut":
            reader.world.store.cut_subscriptions()
        case "resume":
            await reader.resume()
        case "hear":
            await reader.hear(min(1, reader.missing()))
        case "yield":
            await asyncio.sleep(0)
        case "leave":
            companion.end()


@given(st.lists(st.sampled_from(["flip", "cut", "resume", "hear", "yield", "leave"]), max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_each_change_is_heard_once_and_in_order(actions: list[str]) -> None:
    async def subscribe() -> None:
        world = World()
        reader = ResumingSubscriber(world, await world.feed.subscribe(ACME, after=0))
        # While it listens, what is read for the tenant outlives a reader that resumes.
        companion = await world.feed.subscribe(ACME, after=None)
        for action in actions:
            await act(reader, companion, action)
        await reader.hear(reader.missing())
        assert reader.heard == list(range(version_of(world.newest()) + 1))
        assert await is_silent(reader.subscriber)
        await world.feed.close()

    asyncio.run(subscribe())
