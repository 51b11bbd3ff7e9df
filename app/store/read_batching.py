"""Read batching: joins concurrent GETs into one round trip."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from app.store.pipeline import PipelineWork


class ReadBatcher:
    """Sends all GETs from one iteration of the event loop in one round trip.

    A batch waits neither for more reads nor for earlier batches. A key is always read after its caller asked for it.
    By `bin/bench` with 16 connections, a read costs 21 µs of CPU in the store. It costs 107 µs if each read has its own
    round trip, its own time limit and a connection from redis-py's pool.
    """

    def __init__(self, run: Callable[[PipelineWork[list[Any]]], Awaitable[list[Any]]]) -> None:
        self._run = run
        self._pending: dict[str, list[asyncio.Future[bytes | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, key: str, limit: float) -> "asyncio.Future[bytes | None]":
        """Return the value of `key`, or None if there is no such key.

        The future ends within `limit` seconds. It raises what `run` raises, and TimeoutError.
        """
        answer = asyncio.get_running_loop().create_future()
        if not self._pending:
            task = asyncio.create_task(self._send_batch(limit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._pending.setdefault(key, []).append(answer)
        return answer

    async def _send_batch(self, limit: float) -> None:
        batch, self._pending = self._pending, {}
        try:
            async with asyncio.timeout(limit):
                replies = await self._run(lambda pipeline: pipeline(*(("GET", key) for key in batch), errors=True))
        except Exception as error:  # raised in the callers instead of this task
            replies = [error] * len(batch)
        except BaseException:
            for answer in itertools.chain(*batch.values()):
                answer.cancel()
            raise
        for answers, reply in zip(batch.values(), replies, strict=True):
            for answer in answers:
                if answer.done():
                    continue  # its caller was cancelled
                if isinstance(reply, Exception):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
