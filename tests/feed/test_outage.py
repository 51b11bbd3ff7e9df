"""The limit and the pauses of failed reads, by a clock that the test moves."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from app.errors import OutcomeUnknown, StoreError
from app.feed.outage import Outage


class Loop(asyncio.SelectorEventLoop):
    """An event loop with the time of the test."""

    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def read_times(loop: Loop, outage: Outage) -> list[float]:
    """Return the seconds from the first failed read to each later one, while all of them fail."""

    async def fail_all() -> list[float]:
        began, times = loop.now, []
        while (pause := outage.pause_after(StoreError("out of reach"))) is not None:
            loop.now += pause
            times.append(loop.now - began)
        return times

    return loop.run_until_complete(fail_all())


def test_last_read_of_an_outage_is_at_its_limit(loop: Loop) -> None:
    times = read_times(loop, Outage(0.25, 15.0))
    assert times[-1] == pytest.approx(15.0)
    assert len(times) < 60
    assert all(later - sooner <= max(0.25, sooner / 4) for sooner, later in zip([0.0, *times], times, strict=False))


def test_readers_that_failed_together_do_not_read_together(loop: Loop) -> None:
    reads = Counter(round(time * 4) for _ in range(1000) for time in read_times(loop, Outage(0.25, 15.0)))
    assert max(number for quarter, number in reads.items() if 32 <= quarter < 56) < 300


def test_outage_begins_again_after_a_successful_read(loop: Loop) -> None:
    outage = Outage(0.25, 15.0)
    assert read_times(loop, outage)[-1] == pytest.approx(15.0)
    assert read_times(loop, outage) == []
    outage.end()
    assert read_times(loop, outage)[-1] == pytest.approx(15.0)


@pytest.mark.parametrize(("error", "is_repeated"), [(OutcomeUnknown("x"), True), (ValueError("x"), False)])
def test_only_errors_of_the_store_are_repeated(loop: Loop, error: Exception, is_repeated: bool) -> None:
    async def fail() -> bool:
        return Outage(0.25, 15.0).pause_after(error) is not None

    assert loop.run_until_complete(fail()) == is_repeated
