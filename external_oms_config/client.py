"""The client for programs without asyncio."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, Self, TypeVar

import httpx

from external_oms_config.async_client import ATTEMPTS, FIRST_VALUE, MAX_AGE, TIMEOUT, AsyncClient, Decision
from external_oms_config.errors import Conflict, UnknownOutcome
from external_oms_config.records import HistoryPage, Message, Setting
from external_oms_config.requests import Token
from external_oms_config.setting_copy import SettingCopy

T = TypeVar("T")


class Client:
    """An AsyncClient on an event loop in its own thread. The methods do the same and block. Any thread may call them.

    Create it after a fork, in the process that uses it.
    """

    def __init__(
        self, url: str, token: Token, *, timeout: float = TIMEOUT, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._client = AsyncClient(url, token, timeout=timeout, transport=transport)
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        # Held while the client closes, so that no call begins that would never end. Reentrant, because the garbage
        # collector may end a `follow` at any point.
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._serve, name="oms-config client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. The client's copies are no longer updated.

        Calls that wait in other threads raise RuntimeError, or UnknownOutcome for a write.
        """
        if self._thread.is_alive():  # not in a fork, where the lock may stay locked
            with self._lock:
                if not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self._stop.set)
                    self._thread.join()

    def get(self) -> Setting:
        """Return the current setting."""
        return self._run(self._client.get())

    def set(self, enabled: bool, *, if_version: int | None = None, reason: str | None = None) -> Setting:
        """Set the setting. See AsyncClient.set."""
        text = f"the request to {self._url} failed: the client was closed; the change may or may not have been stored"
        writing = self._client.set(enabled, if_version=if_version, reason=reason)
        return self._run(writing, if_closed=UnknownOutcome(text))

    def update(self, decide: Decision, *, reason: str | None = None, attempts: int = ATTEMPTS) -> Setting:
        """Set the setting, and decide again after a conflict. See AsyncClient.update. Here, `decide` may block."""
        while True:
            setting = self.get()
            enabled = decide if isinstance(decide, bool) else decide(setting)
            try:
                return self.set(enabled, if_version=setting.version, reason=reason)
            except Conflict:
                attempts -= 1
                if attempts < 1:
                    raise

    def history(self, *, limit: int | None = None, before: int | None = None) -> HistoryPage:
        """Return past changes, newest first. See AsyncClient.history."""
        return self._run(self._client.history(limit=limit, before=before))

    def follow(self) -> Generator[Message, None, None]:
        """Yield the current setting, then each change, once and in order. See AsyncClient.follow."""
        messages, reading = self._client.follow(), asyncio.Lock()

        async def next_message() -> Message:
            async with reading:
                return await anext(messages)

        async def close() -> None:
            async with reading:  # after Ctrl-C, the last read ends a moment later
                await messages.aclose()

        try:
            while True:
                yield self._run(next_message())
        finally:
            with contextlib.suppress(_ClosedError):
                self._run(close())

    def keep_copy(self, *, max_age: float = MAX_AGE, wait: float = FIRST_VALUE) -> SettingCopy:
        """Return a local copy that follows each change until the client is closed. See AsyncClient.keep_copy."""
        return self._run(self._client.keep_copy(max_age=max_age, wait=wait))

    def _run(self, coroutine: Coroutine[Any, Any, T], if_closed: Exception | None = None) -> T:
        """Return the result. Raise `if_closed`, or else RuntimeError, if the client is closed before there is one."""
        future = self._submit(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise if_closed or _ClosedError("this client was closed during the call") from None
        finally:
            future.cancel()  # after Ctrl-C; otherwise without effect

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if self._thread.is_alive():
            with self._lock:
                if not self._loop.is_closed():
                    return asyncio.run_coroutine_threadsafe(self._call(coroutine), self._loop)
        coroutine.close()
        raise _ClosedError("this client is closed, or was created before a fork")

    async def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if task := asyncio.current_task():
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return await coroutine

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._run_until_stopped())
        finally:
            self._loop.close()

    async def _run_until_stopped(self) -> None:
        await self._stop.wait()
        for each in self._calls:  # not the tasks of libraries, which end with these
            each.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._client.aclose()
        # The ends of generators that the garbage collector has found are tasks, which begin in the next iteration.
        await self._loop.shutdown_asyncgens()
        await asyncio.sleep(0)
        if ending := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(ending, timeout=1)


class _ClosedError(RuntimeError):
    """The client is closed."""
