"""When a poller polls, by a clock that does not wait."""

import asyncio

from app.store.poller import Poller
from tests.simulation.loop import SimulatedLoop


def test_poll_without_an_answer_is_repeated_sooner_than_one_with_an_answer() -> None:
    loop = SimulatedLoop(1)
    times: list[float] = []

    async def poll() -> bool:
        times.append(round(loop.time(), 3))
        return len(times) > 2

    async def run() -> None:
        poller = Poller(poll, interval=0.5)
        poller.start()
        await asyncio.sleep(1.3)
        poller.close()

    loop.run(run())
    assert times == [0, 0.1, 0.2, 0.7, 1.2]
