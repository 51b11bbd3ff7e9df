"""Connections to Redis with changed behaviour."""

from collections.abc import Awaitable, Callable
from typing import Any

from app.store.connections import ServerConnections
from app.store.pipeline import Pipeline, PipelineWork, T

Callback = Callable[[], Awaitable[object]]


class WrappedConnections(ServerConnections):
    """Connections whose pipelines a subclass wraps."""

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        """Return a pipeline to use instead of `pipeline`."""
        return pipeline

    async def run(self, key: str | None, work: PipelineWork[T], *, fresh: bool = False, writes: bool = False) -> T:
        wrapped = work if fresh else (lambda pipeline: work(self.wrap(pipeline)))
        return await super().run(key, wrapped, fresh=fresh, writes=writes)


class InterruptedConnections(WrappedConnections):
    """Connections that call back between WATCH and EXEC."""

    before_multi: Callback

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        return interrupted(pipeline, self.before_multi)


class UnwatchedConnections(WrappedConnections):
    """A negative control: sends PING instead of WATCH."""

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        return without_watch(pipeline)


def interrupted(pipeline: Pipeline, before_multi: Callback) -> Pipeline:
    """Return a pipeline that calls back before it sends MULTI."""

    async def call(*commands: tuple[Any, ...], **options: Any) -> list[Any]:
        if commands[0] == ("MULTI",):
            await before_multi()
        return await pipeline(*commands, **options)

    return call


def without_watch(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline that sends PING instead of WATCH."""

    async def call(*commands: tuple[Any, ...], **options: Any) -> list[Any]:
        unwatched_commands = (("PING",) if name == "WATCH" else (name, *rest) for name, *rest in commands)
        return await pipeline(*unwatched_commands, **options)

    return call
