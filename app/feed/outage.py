"""The limit and the pauses of failed reads of the store."""

import asyncio
import random

from app.errors import StoreError


class Outage:
    """The failed reads in a row of one reader of the store: a topic, or a subscriber that catches up.

    All times are in seconds. A pause is at most `retry`, or a quarter of the outage if that is more. A random part is
    subtracted. Readers that failed together then neither load a store that is down nor come back at the same moment.
    """

    __slots__ = ("_began", "_max_outage", "_retry")

    def __init__(self, retry: float, max_outage: float) -> None:
        self._retry = retry
        self._max_outage = max_outage
        self._began: float | None = None

    def pause_after(self, error: Exception) -> float | None:
        """Return the pause before the next read, after `error`. None means that there is no use in another read.

        This is so after an error that is not a StoreError, and if no read has succeeded for `max_outage`.
        """
        now = asyncio.get_running_loop().time()
        self._began = now if self._began is None else self._began
        lasted = now - self._began
        if not isinstance(error, StoreError) or lasted >= self._max_outage:
            return None
        pause = max(self._retry, lasted / 4) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        return min(pause, self._max_outage - lasted)

    def end(self) -> None:
        """End the outage after a successful read."""
        self._began = None
