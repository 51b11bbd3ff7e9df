"""Readiness: whether the store answers reads, with a log line for each change."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from app.errors import StoreError
from app.store import Store

_log = logging.getLogger(__name__)

# Returns why the store failed, for the log. The text contains no secret.
Explain = Callable[[StoreError], Awaitable[str]]


class Readiness:
    """Asks the store whenever a caller checks, and logs when the answer changes.

    `is_ready` is the newest answer, and True before the first. A check during an outage that has just begun also waits
    for `explain`.
    """

    def __init__(self, store: Store, explain: Explain) -> None:
        self._store = store
        self._explain = explain
        self._lock = asyncio.Lock()
        self._newest = 0.0
        self.is_ready = True

    async def check(self) -> bool:
        """Return True if the store answers reads."""
        began, failure = time.monotonic(), None
        try:
            await self._store.ping()
        except StoreError as error:
            failure = error
        async with self._lock:  # so that the line about an outage is written before the one about its end
            if began >= self._newest:  # otherwise a check that began later has ended before this one
                self._newest = began
                await self._record(failure)
        return failure is None

    async def _record(self, failure: StoreError | None) -> None:
        if failure is None:
            if not self.is_ready:
                _log.info("ready")
            self.is_ready = True
        elif self.is_ready:
            self.is_ready = False
            _log.warning("not ready", extra={"cause": await self._explain(failure)})
