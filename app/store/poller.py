"""Polls sentinels or cluster nodes at an interval, for callers that wait for news."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

# In seconds: the interval at the start, because callers wait for the first answer.
_FIRST_INTERVAL: Final = 0.1


class Poller:
    """Calls `poll` every `interval` seconds, from `start` to `close`.

    At the start, it repeats the first poll ten times a second until it returns True, for at most `interval` seconds.
    These calls count as one poll. `poll` handles the errors that it expects. Any other error ends polling until the
    next `start`.
    """

    def __init__(self, poll: Callable[[], Awaitable[bool]], interval: float) -> None:
        self._poll = poll
        self._interval = interval
        self._polling: asyncio.Task[None] | None = None
        self._last_poll = -1.0  # when the last complete poll began, by the loop's clock
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Start polling, unless it is running. The first poll begins at once."""
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._run())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, or until the end of a poll that began after this call."""
        called = asyncio.get_running_loop().time()
        while not condition() and self._last_poll < called:
            await self._changed.wait()

    def notify(self) -> None:
        """Let waiting callers check their conditions before the poll ends."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End polling. A poll in progress is cancelled."""
        if self._polling is not None:
            self._polling.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        first_ends = loop.time() + self._interval
        while True:
            began = loop.time()
            interval = _FIRST_INTERVAL
            if await self._poll() or began >= first_ends:
                interval = self._interval
                self._last_poll = began
                self.notify()
            await asyncio.sleep(began + interval - loop.time())
