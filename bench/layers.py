"""CPU time per layer of the service, without the time of the layers that it calls."""

import contextlib
import functools
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any

import connexion
from starlette.types import ASGIApp, Receive, Scope, Send

import app.store.connections
from app.store.pipeline import Pipeline, pipeline_on
from app.store.redis_store import RedisStore
from app.web.contract.flask_bridge import FlaskBridge
from app.web.contract.views import View
from app.web.middleware.request_observers import RequestObservers

SERVER = "server"


class Clock:
    """Adds up this thread's CPU time per layer, in nanoseconds. One layer is active at a time."""

    def __init__(self) -> None:
        self.spent = Counter[str]()
        self._layer = SERVER
        self._since = time.thread_time_ns()

    def enter(self, layer: str) -> str:
        """Make `layer` the active one and return the one before."""
        now = time.thread_time_ns()
        self.spent[self._layer] += now - self._since
        previous, self._layer, self._since = self._layer, layer, now
        return previous

    def timed(self, layer: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return `function` with the CPU time of each of its steps added to `layer`."""

        @functools.wraps(function)
        async def step_by_step(*args: Any, **kwargs: Any) -> Any:
            return await self._steps(layer, function(*args, **kwargs).__await__())

        return step_by_step

    @types.coroutine
    def _steps(self, layer: str, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = functools.partial(next, steps)
        while True:
            previous = self.enter(layer)
            try:
                awaited = resume()
            except StopIteration as end:
                return end.value
            finally:
                self.enter(previous)
            try:
                resume = functools.partial(steps.send, (yield awaited))
            except BaseException as error:  # the layer handles it, as it would without the clock
                resume = functools.partial(steps.throw, error)


@contextlib.contextmanager
def measured() -> Iterator[Clock]:
    """Measure all requests within the block. The outermost function of each layer is replaced by a timed one."""
    clock = Clock()
    with contextlib.ExitStack() as stack:

        def replace(owner: Any, name: str, function: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, function)

        def timed_pipeline_on(connection: Any) -> Pipeline:
            return clock.timed("store", pipeline_on(connection))

        replace(RequestObservers, "__call__", clock.timed("around", _with_send(clock, RequestObservers.__call__)))
        replace(
            connexion.ConnexionMiddleware, "__call__", clock.timed("Connexion", connexion.ConnexionMiddleware.__call__)
        )
        replace(FlaskBridge, "__call__", clock.timed("Flask", FlaskBridge.__call__))
        replace(View, "__call__", clock.timed("operation", View.__call__))
        for operation in ("current", "change"):
            replace(RedisStore, operation, clock.timed("store", getattr(RedisStore, operation)))
        replace(app.store.connections, "pipeline_on", timed_pipeline_on)
        yield clock


def _with_send(clock: Clock, call: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def call_with_send(self: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        await call(self, scope, receive, clock.timed(SERVER, send))

    return call_with_send
