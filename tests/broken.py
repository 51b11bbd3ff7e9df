"""Negative controls: what a store looks like from which something was taken out."""

from typing import Any

from app.store.pipeline import Pipeline


def without_watch(pipeline: Pipeline) -> Pipeline:
    """The same exchange, with PING in the place of WATCH."""

    async def unwatched(*commands: tuple[Any, ...], **options: Any) -> list[Any]:
        unwatched_commands = (("PING",) if name == "WATCH" else (name, *rest) for name, *rest in commands)
        return await pipeline(*unwatched_commands, **options)

    return unwatched
