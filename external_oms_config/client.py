"""The client for programs without asyncio."""

import asyncio
import threading
from collections.abc import Coroutine, Generator
from typing import Any, Self, TypeVar

import httpx

from external_oms_config.async_client import ATTEMPTS, FIRST_VALUE, MAX_AGE, TIMEOUT, AsyncClient, Decision
from external_oms_config.errors import Conflict
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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="oms-config client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. The client's copies are no longer updated."""
        if self._loop.is_closed():
            return
        self._run(self._client.aclose())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self) -> Setting:
        """Return the current setting."""
        return self._run(self._client.get())

    def set(self, enabled: bool, *, if_version: int | None = None, reason: str | None = None) -> Setting:
        """Set the setting. See AsyncClient.set."""
        return self._run(self._client.set(enabled, if_version=if_version, reason=reason))

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
            self._run(close())

    def keep_copy(self, *, max_age: float = MAX_AGE, wait: float = FIRST_VALUE) -> SettingCopy:
        """Return a local copy that follows each change until the client is closed. See AsyncClient.keep_copy."""
        return self._run(self._client.keep_copy(max_age=max_age, wait=wait))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if not self._thread.is_alive():
            coroutine.close()
            raise RuntimeError("this client is closed, or was created before a fork")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # after Ctrl-C; otherwise without effect
