"""An event loop with virtual time and a seeded order of callbacks."""

import asyncio
import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

# A run that needs more virtual seconds or more callbacks hangs, or runs in circles.
MAX_TIME: Final = 600.0
MAX_STEPS: Final = 2_000_000


class StuckError(Exception):
    """The run does not end: it waits for nothing, or it exceeds a limit. The text says which."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop whose time passes only while no callback is ready.

    With an odd `seed`, the seed decides which ready callback is next; with an even one, they run in the order in which
    they became ready, as in asyncio. `errors` has what asyncio's loop would log: exceptions that no code handled.
    """

    def __init__(self, seed: int) -> None:
        # Without the initialization of the base class: all of its methods that a run needs are replaced below.
        self._chance = random.Random(f"loop {seed}")
        self._is_shuffled = seed % 2 == 1
        self._now = 0.0
        self._running = False
        self._queue: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self.steps = 0
        self.errors: list[str] = []

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return not self._running

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: cancelled timers are skipped when they are due. Called by TimerHandle."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `main`. Raises StuckError if it does not end."""
        task: asyncio.Task[Result] = asyncio.Task(main, loop=self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            while not task.done():
                self._run_next()
        finally:
            self._end_tasks()
            self._running = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        return task.result()

    def _end_tasks(self) -> None:
        """Cancel the tasks that are left. Without it, Python would report them when another run has begun."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        for _ in range(MAX_STEPS):
            if not self._queue:
                break
            handle = self._queue.popleft()
            if not handle.cancelled():
                handle._run()

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close a generator that was left, as asyncio does: not after the end of the run, when no task would run."""
        if self._running:
            self.create_task(generator.aclose())

    def _run_next(self) -> None:
        queue = self._queue
        if not queue or (self._timers and self._timers[0][0] <= self._now):
            self._advance()
            if not queue:
                return  # the due timers were cancelled
        if self._is_shuffled and len(queue) > 1:
            index = int(self._chance.random() * len(queue))
            queue[0], queue[index] = queue[index], queue[0]
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise StuckError(f"not finished after {MAX_STEPS} callbacks, at {self._now:.3f} virtual seconds")
        handle = queue.popleft()
        if not handle.cancelled():
            handle._run()

    def _advance(self) -> None:
        """Queue the timers that are due. If no callback is ready, it is the next timer's time."""
        queue, timers = self._queue, self._timers
        if not queue:
            if not timers:
                raise StuckError(f"deadlock at {self._now:.3f} s: no callback and no timer is left")
            self._now = max(self._now, timers[0][0])
            if self._now > MAX_TIME:
                raise StuckError(f"not finished after {MAX_TIME:.0f} virtual seconds")
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                queue.append(timer)
