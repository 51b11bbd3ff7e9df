"""Events of the feed. The fake store lets a test choose the moment of each step."""

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
from app.feed.topic import error_with_cause
from app.model import Author, Change, ChangeEvent, EventId, Setting, version_of
from tests.conftest import Run
from tests.fake_store import FakeStore
from tests.waiting import PATIENCE

AUTHOR = Author("tester", "request-1")
ACME = "acme"
UNREACHABLE = StoreError("out of reach")


class FailingStore(FakeStore):
    """A store that fails or waits while the test wants it to."""

    error: Exception | None = None
    failures = 0  # how many of the next reads fail
    accepts_subscriptions = True
    reads = 0
    are_reads_reached: asyncio.Event
    awaited_reads: int | None = None
    read_gate: asyncio.Event | None = None
    hung_tenant: str | None = None  # the only tenant whose reads wait for `read_gate`, or None for all
    subscription_gate: asyncio.Event | None = None

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        self.reads += 1
        if self.reads == self.awaited_reads:
            self.are_reads_reached.set()
        await asyncio.sleep(0)
        if self.read_gate is not None and self.hung_tenant in {None, tenant}:
            await self.read_gate.wait()
        if self.failures:
            self.failures -= 1
            raise StoreError("out of reach")
        if self.error is not None:
            raise self.error
        return await super().history(tenant, limit, before)

    @contextlib.asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[str]]:
        if not self.accepts_subscriptions:
            raise StoreError("out of reach")
        if self.subscription_gate is not None:
            await self.subscription_gate.wait()
        async with super().announcements() as tenants:
            yield tenants


class FeedHarness:
    """A feed on a fake store."""

    def __init__(self, history_length: int = 1000, max_outage: float = 15.0) -> None:
        self.store = FailingStore(history_length)
        self.store.are_reads_reached = asyncio.Event()
        self.feed = Feed(self.store, retry=0.001, max_outage=max_outage)

    async def flip(self, times: int = 1, tenant: str = ACME) -> None:
        for _ in range(times):
            current = await self.store.current(tenant)
            await self.store.change(tenant, not current.enabled, AUTHOR)

    async def reads_at_least(self, number: int) -> None:
        """Wait for that many more reads."""
        self.store.awaited_reads = self.store.reads + number
        async with asyncio.timeout(PATIENCE):
            await self.store.are_reads_reached.wait()
        self.store.are_reads_reached.clear()

    def newest(self) -> Change | None:
        return self.store.changes[ACME][-1] if ACME in self.store.changes else None

    def replace_history(self, *enabled: bool) -> None:
        """Replace the tenant's history without an announcement, as a failover or a restored backup does."""
        then = datetime(2020, 1, 1, tzinfo=UTC)
        settings = [Setting(value, version) for version, value in enumerate(enabled, start=1)]
        author = Author("other", "request-2")
        self.store.changes[ACME] = [Change(each, then, author, f"other-{each.version}") for each in settings]


async def take(subscriber: Subscriber, number: int) -> list[ChangeEvent]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(subscriber) for _ in range(number)]


async def take_despite_cancellations(subscriber: Subscriber) -> ChangeEvent:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    return await anext(subscriber)


async def versions(subscriber: Subscriber, number: int) -> list[int]:
    events = await take(subscriber, number)
    assert not any(event.is_reset for event in events)
    return [version_of(event.change) for event in events]


async def is_silent(subscriber: Subscriber) -> bool:
    """Return True if the subscriber has no event after all pending tasks have run."""
    for _ in range(100):
        await asyncio.sleep(0)
    waiting = asyncio.ensure_future(anext(subscriber))
    for _ in range(100):
        await asyncio.sleep(0)
    return waiting.cancel()


async def is_ended(subscriber: Subscriber) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await anext(subscriber, None) is None


def test_subscriber_gets_current_setting_then_each_change(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        first = await harness.feed.subscribe(ACME, after=None)
        assert await take(first, 1) == [ChangeEvent(None)]
        await harness.flip(3)
        second = await harness.feed.subscribe(ACME, after=None)
        assert await versions(first, 3) == [1, 2, 3]
        await harness.flip()
        assert await versions(second, 2) == [3, 4]
        assert await versions(first, 1) == [4]
        assert await is_silent(first)
        await harness.feed.close()

    run(subscribe())


def test_subscriber_gets_only_changes_of_its_tenant(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        await harness.flip(tenant="other")
        assert await is_silent(subscriber)
        await harness.feed.close()

    run(subscribe())


@pytest.mark.parametrize("changes", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("missed", [0, 1, 100, 101, 250])
def test_resumed_subscriber_gets_all_missed_changes(run: Run, changes: int, missed: int) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(changes + missed)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(changes))
        await harness.flip()
        assert await versions(subscriber, missed + 1) == list(range(changes + 1, changes + missed + 2))
        assert await is_silent(subscriber)
        await harness.feed.close()

    run(subscribe())


@pytest.mark.parametrize(("after", "is_resumed"), [(0, False), (1, False), (4, False), (5, True), (6, True)])
def test_resuming_resets_only_if_history_does_not_reach_back(run: Run, after: int, is_resumed: bool) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(history_length=3)
        await harness.flip(8)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(after))
        if is_resumed:
            assert await versions(subscriber, 8 - after) == list(range(after + 1, 9))
        else:
            assert await take(subscriber, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        await harness.flip()
        assert await versions(subscriber, 1) == [9]
        await harness.feed.close()

    run(subscribe())


def test_resuming_resets_if_the_checksum_cannot_be_compared(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(history_length=3)
        await harness.flip(8)
        kept, trimmed = (EventId.of(harness.store.changes[ACME][index]) for index in (-3, -4))
        subscriber = await harness.feed.subscribe(ACME, after=kept)
        assert await versions(subscriber, 2) == [7, 8]
        subscriber = await harness.feed.subscribe(ACME, after=trimmed)
        assert await take(subscriber, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        await harness.feed.close()

    run(subscribe())


def test_history_of_one_change_does_not_reset_running_streams(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(history_length=1)
        subscriber = await harness.feed.subscribe(ACME, after=None)
        assert await versions(subscriber, 1) == [0]
        for version in range(1, 4):
            await harness.flip()
            assert await versions(subscriber, 1) == [version]
        await harness.feed.close()

    run(subscribe())


@pytest.mark.parametrize("current", [0, 1, 2])
def test_resuming_after_the_current_version_resets(run: Run, current: int) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(current)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(7))
        assert await take(subscriber, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        await harness.flip()
        assert await versions(subscriber, 1) == [current + 1]
        await harness.feed.close()

    run(subscribe())


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("made", [1, 2, 3, 250])
def test_resuming_after_a_lost_change_resets_even_if_its_version_was_reused(run: Run, lost: int, made: int) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(3)
        last = EventId.of(harness.newest())
        first = await harness.feed.subscribe(ACME, after=last)
        assert await is_silent(first)
        first.end()
        del harness.store.changes[ACME][-lost:]
        await harness.flip(made)
        # Without the topic of another subscriber, and with it.
        for _ in range(2):
            resumed = await harness.feed.subscribe(ACME, after=last)
            assert await take(resumed, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        await harness.flip()
        assert await versions(resumed, 1) == [4 - lost + made]
        await harness.feed.close()

    run(subscribe())


def test_change_that_is_replaced_before_the_topic_reads_it_is_not_sent(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        silent = FakeStore(1000, harness.store.changes)  # announces nothing
        await harness.flip(2)
        topic = (await harness.feed.subscribe(ACME, after=None)).topic
        resumed = Subscriber(topic, lambda _: None)
        topic.subscribers[resumed] = None
        await silent.change(ACME, True, AUTHOR)
        await resumed.begin(EventId(1))
        del harness.store.changes[ACME][2:]
        for enabled in (True, False):
            await silent.change(ACME, enabled, AUTHOR)
        await topic.read()
        assert [event.change for event in await take(resumed, 3)] == harness.store.changes[ACME][1:]
        del topic.subscribers[resumed]
        await harness.feed.close()

    run(subscribe())


def test_resuming_with_a_version_alone_does_not_detect_another_change(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(3)
        harness.replace_history(True, False, True, False)
        assert await versions(await harness.feed.subscribe(ACME, after=EventId(3)), 1) == [4]
        assert await is_silent(await harness.feed.subscribe(ACME, after=EventId(4)))
        await harness.feed.close()

    run(subscribe())


def test_resuming_with_the_id_of_each_event_skips_and_repeats_nothing(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(130)
        for version, change in enumerate([None, *harness.store.changes[ACME]]):
            subscriber = await harness.feed.subscribe(ACME, after=EventId.of(change))
            assert await versions(subscriber, 130 - version) == list(range(version + 1, 131))
            assert await is_silent(subscriber)
        await harness.feed.close()

    run(subscribe())


def test_changes_during_a_lost_subscription_are_caught_up(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.cut_subscriptions()
        await harness.flip(250)
        assert await versions(subscriber, 250) == list(range(1, 251))
        await harness.flip()
        assert await versions(subscriber, 1) == [251]
        await harness.feed.close()

    run(subscribe())


@pytest.mark.parametrize("other_history", [[], [True], [True, False, True], [True, False, True, False], [False] * 3])
def test_different_history_resets_subscribers(run: Run, other_history: list[bool]) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(3)
        subscribers = [await harness.feed.subscribe(ACME, after=EventId(3)) for _ in range(2)]
        harness.replace_history(*other_history)
        if not other_history:
            harness.store.changes.clear()
        harness.store.cut_subscriptions()
        for subscriber in subscribers:
            assert await take(subscriber, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        await harness.flip()
        for subscriber in subscribers:
            assert await versions(subscriber, 1) == [len(other_history) + 1]
            assert await is_silent(subscriber)
        await harness.feed.close()

    run(subscribe())


@pytest.mark.parametrize("yields", range(12))
def test_first_change_during_a_read_is_no_reset(run: Run, yields: int) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.announce(ACME)
        for _ in range(yields):
            await asyncio.sleep(0)
        await harness.flip()
        assert await versions(subscriber, 1) == [1]
        await harness.feed.close()

    run(subscribe())


def test_announcement_without_a_change_sends_no_event(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(1))
        harness.store.announce(ACME)
        harness.store.announce("unknown")
        assert await is_silent(subscriber)
        await harness.feed.close()

    run(subscribe())


def test_full_event_queue_is_refilled_from_the_history(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        slow, quick = [await harness.feed.subscribe(ACME, after=EventId(0)) for _ in range(2)]
        for version in range(1, 301):
            await harness.flip()
            assert await versions(quick, 1) == [version]
        assert len(slow._events) == MAX_QUEUED_EVENTS
        assert await versions(slow, 300) == list(range(1, 301))
        await harness.feed.close()

    run(subscribe())


def test_cancelled_wait_loses_no_event(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        for version in range(1, 20):
            waiting = asyncio.ensure_future(anext(subscriber))
            for _ in range(version):
                await asyncio.sleep(0)
            waiting.cancel()
            await harness.flip()
            await asyncio.wait([waiting])
            received = [version] if waiting.cancelled() else [version_of(waiting.result().change)]
            if waiting.cancelled():
                assert await versions(subscriber, 1) == received
        await harness.feed.close()

    run(subscribe())


def test_subscribers_share_one_subscription_that_ends_with_the_last(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscribers = [await harness.feed.subscribe(f"tenant-{n % 7}", after=None) for n in range(50)]
        assert harness.store.subscriptions == 1
        for subscriber in subscribers:
            subscriber.end()
            subscriber.end()
        assert await is_ended(subscribers[0])
        await asyncio.sleep(0.01)
        assert harness.store.subscriptions == 0
        again = await harness.feed.subscribe(ACME, after=None)
        assert harness.store.subscriptions == 1
        await harness.feed.close()
        assert await is_ended(again)
        assert harness.store.subscriptions == 0

    run(subscribe())


def test_subscribing_fails_at_once_while_the_store_is_unavailable(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        harness.store.accepts_subscriptions = False
        for _ in range(3):
            with pytest.raises(StoreError):
                await harness.feed.subscribe(ACME, after=None)
        harness.store.accepts_subscriptions, harness.store.error = True, UNREACHABLE
        for _ in range(3):
            with pytest.raises(StoreError):
                await harness.feed.subscribe(ACME, after=None)
        harness.store.error = None
        assert await take(await harness.feed.subscribe(ACME, after=None), 1) == [ChangeEvent(None)]
        await harness.feed.close()

    run(subscribe())


def test_failed_reads_end_no_subscriber_and_lose_no_change(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        tenants = [f"tenant-{n}" for n in range(30)]
        subscribers = [await harness.feed.subscribe(tenant, after=EventId(0)) for tenant in tenants]
        for last in range(2, 23, 2):  # eleven outages
            harness.store.error = UNREACHABLE
            for tenant in tenants:
                await harness.flip(2, tenant)
            await harness.reads_at_least(5 * len(tenants))
            harness.store.error = None
            for subscriber in subscribers:
                assert await versions(subscriber, 2) == [last - 1, last]
        await harness.feed.close()

    run(subscribe())


def test_tenant_whose_changes_stay_unreadable_loses_only_its_subscribers(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(max_outage=0.05)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        other = await harness.feed.subscribe("other", after=EventId(0))
        harness.store.error = UNREACHABLE
        await harness.flip()
        assert await is_ended(subscriber)
        harness.store.error = None
        await harness.flip(tenant="other")
        assert await versions(other, 1) == [1]
        await harness.feed.close()

    run(subscribe())
    assert [(each.message, each.exc_info) for each in caplog.records] == [("changes are not read", None)]


def test_unexpected_error_of_a_read_ends_subscribers_at_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.error = ZeroDivisionError("a bug")
        await harness.flip()
        before = harness.store.reads
        assert await is_ended(subscriber)
        assert harness.store.reads == before + 1
        await harness.feed.close()

    run(subscribe())
    assert [(each.message, bool(each.exc_info)) for each in caplog.records] == [("changes are not read", True)]


def test_failing_topic_fails_new_subscribers_and_keeps_the_others(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.error = StoreError("the reason")
        await harness.flip()
        for _ in range(3):
            with pytest.raises(StoreError, match="the reason"):
                await harness.feed.subscribe(ACME, after=None)
        harness.store.error = None
        # A new subscriber does not wait until the topic reads again by itself.
        assert await versions(await harness.feed.subscribe(ACME, after=None), 1) == [1]
        assert await versions(subscriber, 1) == [1]
        await harness.feed.close()

    run(subscribe())


def test_failed_subscribes_do_not_multiply_the_reads_of_a_failing_topic(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        harness.feed = Feed(harness.store, retry=0.05)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.error = UNREACHABLE
        for _ in range(50):
            with pytest.raises(StoreError):
                await harness.feed.subscribe(ACME, after=None)
        before = harness.store.reads
        await asyncio.sleep(0.3)
        assert harness.store.reads - before < 50
        subscriber.end()

    run(subscribe())


def test_failing_topic_without_subscribers_reads_no_more(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        subscriber, other = [await harness.feed.subscribe(tenant, after=EventId(0)) for tenant in (ACME, "other")]
        harness.store.error = UNREACHABLE
        await harness.flip()
        await harness.reads_at_least(3)
        subscriber.end()
        await asyncio.sleep(0.01)  # a read may have begun before
        before = harness.store.reads
        await asyncio.sleep(0.1)
        assert harness.store.reads == before
        other.end()

    run(subscribe())


def test_limit_of_an_outage_begins_again_after_a_successful_read(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(max_outage=0.05)
        quick, slow = [await harness.feed.subscribe(ACME, after=EventId(0)) for _ in range(2)]
        for first in (1, 31):
            harness.store.failures = 1
            await harness.flip(30)
            assert await versions(quick, 30) == list(range(first, first + 30))
            harness.store.failures = 1
            assert await versions(slow, 30) == list(range(first, first + 30))
            assert harness.store.failures == 0
            await asyncio.sleep(0.1)  # longer than the limit
        await harness.feed.close()

    run(subscribe())


def test_failed_catch_up_of_a_slow_subscriber_is_repeated(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        slow = await slow_subscriber(harness)
        harness.store.failures = 5
        assert await versions(slow, 30) == list(range(1, 31))
        assert harness.store.failures == 0
        await harness.feed.close()

    run(subscribe())


def test_catch_up_that_fails_for_too_long_ends_its_subscriber(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(max_outage=0.05)
        slow = await slow_subscriber(harness)
        harness.store.error = UNREACHABLE
        assert await versions(slow, MAX_QUEUED_EVENTS) == list(range(1, MAX_QUEUED_EVENTS + 1))
        with pytest.raises(StoreError):
            await take(slow, 1)
        await harness.feed.close()

    run(subscribe())


def test_subscriber_that_waits_to_catch_up_ends_at_once(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        harness.feed = Feed(harness.store, retry=10 * PATIENCE, max_outage=100 * PATIENCE)
        slow = await slow_subscriber(harness)
        await take(slow, MAX_QUEUED_EVENTS)
        harness.store.error = UNREACHABLE
        waiting = asyncio.ensure_future(is_ended(slow))
        await harness.reads_at_least(1)
        await harness.feed.close()
        assert await waiting

    run(subscribe())


def test_reset_reaches_a_subscriber_that_waits_to_catch_up(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        harness.feed = Feed(harness.store, retry=10 * PATIENCE, max_outage=100 * PATIENCE)
        slow = await slow_subscriber(harness)
        await take(slow, MAX_QUEUED_EVENTS)
        harness.store.failures = 1
        waiting = asyncio.ensure_future(take(slow, 1))
        await harness.reads_at_least(1)
        harness.replace_history(True)
        harness.store.announce(ACME)
        assert await waiting == [ChangeEvent(harness.newest(), is_reset=True)]
        await harness.feed.close()

    run(subscribe())


def test_tenant_whose_read_hangs_does_not_delay_others_after_a_lost_subscription(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        hung = await harness.feed.subscribe("hung", after=EventId(0))
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.hung_tenant, harness.store.read_gate = "hung", asyncio.Event()
        harness.store.cut_subscriptions()
        for version in (1, 2):
            await harness.flip()
            assert await versions(subscriber, 1) == [version]
        await harness.flip(tenant="hung")
        harness.store.read_gate.set()
        assert await versions(hung, 1) == [1]
        await harness.feed.close()

    run(subscribe())


def test_catch_up_is_limited_although_its_waits_are_cancelled(run: Run) -> None:
    """As by the comments of an event stream."""

    async def subscribe() -> None:
        harness = FeedHarness(max_outage=0.3)
        slow = await slow_subscriber(harness)
        await take(slow, MAX_QUEUED_EVENTS)
        harness.store.error = UNREACHABLE
        with pytest.raises(StoreError):
            await take_despite_cancellations(slow)
        await harness.feed.close()

    run(subscribe())


def test_long_outage_ends_subscribers(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(max_outage=0.05)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        harness.store.accepts_subscriptions = False
        harness.store.cut_subscriptions()
        assert await is_ended(subscriber)
        harness.store.accepts_subscriptions = True
        assert await take(await harness.feed.subscribe(ACME, after=None), 1) == [ChangeEvent(None)]
        await harness.feed.close()

    run(subscribe())


def test_outage_limit_starts_when_the_subscription_is_lost(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness(max_outage=1.0)
        subscriber = await harness.feed.subscribe(ACME, after=EventId(0))
        await asyncio.sleep(1.5)
        harness.store.cut_subscriptions()
        await harness.flip()
        assert await versions(subscriber, 1) == [1]
        await harness.feed.close()

    run(subscribe())


async def slow_subscriber(harness: FeedHarness, number: int = 30) -> Subscriber:
    """Return a subscriber that has received none of that many changes."""
    slow, quick = [await harness.feed.subscribe(ACME, after=EventId(0)) for _ in range(2)]
    for version in range(1, number + 1):
        await harness.flip()
        assert await versions(quick, 1) == [version]
    return slow


def test_reset_during_catch_up_replaces_missed_changes(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        slow = await slow_subscriber(harness)
        assert await versions(slow, 16) == list(range(1, 17))
        real, reached, go = harness.store.history, asyncio.Event(), asyncio.Event()

        async def held(tenant: str, limit: int, before: int | None = None) -> list[Change]:
            harness.store.history = real  # type: ignore[method-assign]
            page = await real(tenant, limit, before)
            reached.set()
            await go.wait()
            return page

        harness.store.history = held  # type: ignore[method-assign]
        waiting = asyncio.ensure_future(take(slow, 1))
        await reached.wait()
        harness.replace_history(True)
        harness.store.announce(ACME)
        for _ in range(50):
            await asyncio.sleep(0)
        go.set()
        assert await waiting == [ChangeEvent(harness.newest(), is_reset=True)]
        assert await is_silent(slow)
        await harness.feed.close()

    run(subscribe())


def test_slow_subscriber_is_reset_once_after_data_loss(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        slow = await slow_subscriber(harness)
        harness.store.changes.clear()  # FLUSHALL: no subscription is cut
        assert await versions(slow, 16) == list(range(1, 17))
        assert await take(slow, 1) == [ChangeEvent(None, is_reset=True)]
        before = harness.store.reads
        assert await is_silent(slow)
        assert harness.store.reads - before <= 3
        await harness.flip()
        assert await versions(slow, 1) == [1]
        await harness.feed.close()

    run(subscribe())


def test_slow_subscriber_is_reset_if_its_last_change_was_lost(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        slow = await slow_subscriber(harness)
        await take(slow, MAX_QUEUED_EVENTS)
        harness.replace_history(*[True, False] * 20)
        assert await take(slow, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        assert await is_silent(slow)
        await harness.feed.close()

    run(subscribe())


def test_subscribing_after_a_history_change_sends_one_event(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        await harness.flip(3)
        first = await harness.feed.subscribe(ACME, after=EventId(3))
        harness.replace_history(True)
        second = await harness.feed.subscribe(ACME, after=None)
        assert await take(first, 1) == [ChangeEvent(harness.newest(), is_reset=True)]
        assert await take(second, 1) == [ChangeEvent(harness.newest())]
        assert await is_silent(second)
        await harness.feed.close()

    run(subscribe())


def test_cancelled_subscribe_does_not_cancel_another(run: Run) -> None:
    async def subscribe() -> None:
        for yields in range(10):
            harness = FeedHarness()
            first, second = [asyncio.ensure_future(harness.feed.subscribe(ACME, after=None)) for _ in range(2)]
            for _ in range(yields):
                await asyncio.sleep(0)
            first.cancel()
            assert await take(await second, 1) == [ChangeEvent(None)]
            await harness.feed.close()

    run(subscribe())


def test_subscribing_while_the_last_subscriber_is_ended_fails(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        assert await is_silent(await harness.feed.subscribe(ACME, after=EventId(0)))
        harness.store.read_gate, harness.store.subscription_gate = asyncio.Event(), asyncio.Event()
        await harness.flip()
        await asyncio.sleep(0.01)
        harness.store.cut_subscriptions()
        await asyncio.sleep(0.01)
        coming = asyncio.ensure_future(harness.feed.subscribe(ACME, after=EventId(0)))
        await asyncio.sleep(0.01)
        harness.store.error = ZeroDivisionError("a bug")
        harness.store.read_gate.set()
        with pytest.raises(StoreError):
            async with asyncio.timeout(PATIENCE):
                await coming
        await harness.feed.close()

    run(subscribe())


def test_failed_read_fails_every_waiting_subscribe(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        other = await harness.feed.subscribe("other", after=EventId(0))
        assert await is_silent(other)
        before = harness.store.reads
        harness.store.read_gate, harness.store.error = asyncio.Event(), UNREACHABLE
        first, second = [asyncio.ensure_future(harness.feed.subscribe(ACME, after=None)) for _ in range(2)]
        await asyncio.sleep(0.01)
        third = asyncio.ensure_future(harness.feed.subscribe(ACME, after=None))
        await asyncio.sleep(0.01)
        harness.store.read_gate.set()
        failed = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(each) for each in failed] == [StoreError] * 3
        assert harness.store.reads == before + 1
        other.end()
        await harness.feed.close()

    run(subscribe())


def test_subscribe_fails_if_the_read_times_out(run: Run) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        harness.feed = Feed(harness.store, limit=0.3)
        harness.store.read_gate = asyncio.Event()
        with pytest.raises(StoreError):
            await harness.feed.subscribe(ACME, after=None)
        harness.store.read_gate.set()
        harness.store.read_gate = None
        assert await take(await harness.feed.subscribe(ACME, after=None), 1) == [ChangeEvent(None)]
        await harness.feed.close()

    run(subscribe())


class ResumingSubscriber:
    """A client that resumes, with the versions that it has received."""

    def __init__(self, harness: FeedHarness, subscriber: Subscriber) -> None:
        self.harness = harness
        self.subscriber = subscriber
        self.received = [0]
        self.last = EventId(0)

    async def resume(self) -> None:
        self.subscriber.end()
        async with asyncio.timeout(PATIENCE):
            while self.subscriber.has_ended:
                with contextlib.suppress(StoreError):
                    self.subscriber = await self.harness.feed.subscribe(ACME, after=self.last)

    async def receive(self, number: int) -> None:
        for event in await take(self.subscriber, number):
            assert not event.is_reset
            self.last = EventId.of(event.change)
            self.received.append(self.last.version)

    def missed(self) -> int:
        return version_of(self.harness.newest()) - self.received[-1]


async def perform(reader: ResumingSubscriber, companion: Subscriber, action: str) -> None:
    match action:
        case "flip":
            await reader.harness.flip()
        case "cut":
            reader.harness.store.cut_subscriptions()
        case "fail":
            reader.harness.store.failures = 3
        case "resume":
            await reader.resume()
        case "receive":
            await reader.receive(min(1, reader.missed()))
        case "yield":
            await asyncio.sleep(0)
        case "leave":
            companion.end()


@given(st.lists(st.sampled_from(["flip", "cut", "fail", "resume", "receive", "yield", "leave"]), max_size=40))
@settings(max_examples=300)
def test_any_interleaving_delivers_each_change_once_in_order(actions: list[str]) -> None:
    async def subscribe() -> None:
        harness = FeedHarness()
        reader = ResumingSubscriber(harness, await harness.feed.subscribe(ACME, after=EventId(0)))
        # This subscriber keeps the topic of the tenant alive while the reader resumes.
        companion = await harness.feed.subscribe(ACME, after=None)
        for action in actions:
            await perform(reader, companion, action)
        await reader.receive(reader.missed())
        assert reader.received == list(range(version_of(harness.newest()) + 1))
        assert await is_silent(reader.subscriber)
        await harness.feed.close()

    asyncio.run(subscribe())


def test_cause_without_a_text_is_logged_by_its_type() -> None:
    lost = StoreError("lost")
    lost.__cause__ = TimeoutError()
    assert error_with_cause(lost) == "lost: TimeoutError"
