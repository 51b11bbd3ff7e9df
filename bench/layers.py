"""Where the processor's time goes: each layer's own, without that of the layers it calls."""

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
from app.web.middleware.response_headers import ResponseHeaders

SERVER = "server"


class Clock:
    """Counts nanoseconds of this thread for one layer at a time."""

    def __init__(self) -> None:
        self.spent = Counter[str]()
        self._layer = SERVER
        self._since = time.thread_time_ns()

    def enter(self, layer: str) -> str:
        """From now on `layer` is at work. Returns which was."""
        now = time.thread_time_ns()
        self.spent[self._layer] += now - self._since
        left, self._layer, self._since = self._layer, layer, now
        return left

    def timed(self, layer: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """`function`, each step of which is counted for `layer`."""

        @functools.wraps(function)
        async def step_by_step(*args: Any, **kwargs: Any) -> Any:
            return await self._steps(layer, function(*args, **kwargs).__await__())

        return step_by_step

    @types.coroutine
    def _steps(self, layer: str, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = functools.partial(next, steps)
        while True:
            left = self.enter(layer)
            try:
                waited_for = resume()
            except StopIteration as end:
                return end.value
            finally:
                self.enter(left)
            try:
                resume = functools.partial(steps.send, (yield waited_for))
            except BaseException as error:  # whatever it is, it is the layer's to handle
                resume = functools.partial(steps.throw, error)


@contextlib.contextmanager
def measured() -> Iterator[Clock]:
    """Has all requests that are answered meanwhile counted, each layer at its outermost function."""
    clock = Clock()
    with contextlib.ExitStack() as stack:

        def replace(owner: Any, name: str, function: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, function)

        def timed_pipeline_on(connection: Any) -> Pipeline:
            return clock.timed("store", pipeline_on(connection))

        replace(ResponseHeaders, "__call__", clock.timed("around", _with_send(clock, ResponseHeaders.__call__)))
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
