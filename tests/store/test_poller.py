"""When a poller polls, by a clock that does not wait."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.store.poller import Poller
from tests.simulation.loop import SimulatedLoop


def polls(first_answer: float, wait: Callable[[Poller], Awaitable[None]]) -> list[float]:
    """Return when a poller polls while `wait` runs. The polls before `first_answer` have no answer."""
    loop = SimulatedLoop(1)
    times: list[float] = []

    async def poll() -> bool:
        times.append(round(loop.time(), 3))
        return loop.time() >= first_answer

    async def run() -> None:
        poller = Poller(poll, interval=0.5)
        poller.start()
        await wait(poller)
        poller.close()

    loop.run(run())
    return times


@pytest.mark.parametrize(
    ("first_answer", "times"),
    [
        (0.0, [0, 0.5, 1.0, 1.5]),
        (0.15, [0, 0.1, 0.2, 0.7, 1.2, 1.7]),
        (9.0, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5]),
    ],
)
def test_first_poll_is_repeated_soon_for_one_interval(first_answer: float, times: list[float]) -> None:
    assert polls(first_answer, lambda _: asyncio.sleep(1.75)) == times


def test_caller_waits_for_the_repeated_first_poll() -> None:
    async def wait(poller: Poller) -> None:
        await asyncio.sleep(0.05)
        await poller.until(lambda: False)

    assert polls(9.0, wait)[-1] == 0.5
    assert polls(0.15, wait)[-1] == 0.2
