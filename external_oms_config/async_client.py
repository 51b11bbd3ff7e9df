"""The client for asyncio: requests, the event stream, and local copies that follow it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from typing import Final, Self
from urllib.parse import quote

import httpx

from external_oms_config.errors import (
    Conflict,
    OmsConfigError,
    StatusError,
    TransportError,
    UnexpectedResponse,
    UnknownOutcome,
)
from external_oms_config.records import Disconnected, Event, Heartbeat, HistoryPage, Message, Setting
from external_oms_config.requests import Requests, Token
from external_oms_config.setting_copy import SettingCopy, keep_current, wait_for_value
from external_oms_config.version import VERSION

_PATH: Final = "/config/sales_order/external_oms"

ATTEMPTS: Final = 5
# In seconds.
TIMEOUT: Final = 10.0
MAX_AGE: Final = 60.0
FIRST_VALUE: Final = 10.0

Decision = bool | Callable[[Setting], bool]


class AsyncClient:
    """A client of the service at `url`, with or without `/v0`, for the tenant of the token.

    `token` is an access token, or a function that returns one. The client calls the function before each request, in a
    thread unless it is a coroutine function. So the function should keep a token until shortly before it expires. A
    request may take `timeout` seconds, and the function too. `transport` is the one of httpx: for other certificates
    or for tests.

    Raises InvalidURL, and ConfigurationError if the environment names an unusable proxy or certificate. Each method
    that sends a request raises OmsConfigError if it fails.
    """

    # In seconds. The service sends a comment every 15 s, so a connection without data for longer is dead.
    _STREAM_TIMEOUT = 45.0
    # In seconds, before a reconnection. The wait doubles with each failed attempt.
    _FIRST_WAIT = 0.5
    _LONGEST_WAIT = 10.0

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        timeout: float = TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
        user_agent: str = f"external-oms-config/{VERSION}",
    ) -> None:
        self._requests = Requests(url, token, timeout, transport, user_agent)
        self._copying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Copies of this client are no longer updated."""
        for task in self._copying:
            task.cancel()
        if self._copying:
            await asyncio.wait(self._copying)
        await self._requests.aclose()

    async def get(self) -> Setting:
        """Return the current setting."""
        async with self._requests.open("GET", _PATH) as reply:
            return await reply.setting()

    async def set(self, enabled: bool, *, if_version: int | None = None, reason: str | None = None) -> Setting:
        """Set the setting, with `if_version` only if that version is current. Return the setting.

        `reason` is stored with the change: 1 to 200 printable characters. The write is sent once. Raises Conflict, and
        UnknownOutcome if the change may have been stored. Raises TypeError or ValueError before it sends anything.
        """
        _check(enabled, if_version, reason)
        headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        headers |= {} if reason is None else {"Change-Reason": quote(reason)}
        try:
            async with self._requests.open("POST", _PATH, headers=headers, json={"enabled": enabled}) as reply:
                setting = await reply.setting()
                if setting.enabled is not enabled:
                    raise ValueError
                return setting
        except (TransportError, UnexpectedResponse, StatusError) as error:
            if isinstance(error, StatusError) and error.status < httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            text = f"{error}; the change may or may not have been stored"
            raise UnknownOutcome(text, error.request_id) from error

    async def update(self, decide: Decision, *, reason: str | None = None, attempts: int = ATTEMPTS) -> Setting:
        """Set the setting to `decide`, or to what `decide` returns for the current setting. Return the new setting.

        Each write has the condition that the setting is still the one that was read. After a conflict, the client reads
        and decides again, in up to `attempts` attempts. `decide` must not block.

        Raises Conflict after the last attempt, and UnknownOutcome. After both, you can call this method again. Raises
        TypeError if `decide` does not return a bool.
        """
        while True:
            setting = await self.get()
            enabled = decide if isinstance(decide, bool) else decide(setting)
            try:
                return await self.set(enabled, if_version=setting.version, reason=reason)
            except Conflict:
                attempts -= 1
                if attempts < 1:
                    raise

    async def history(self, *, limit: int | None = None, before: int | None = None) -> HistoryPage:
        """Return changes, newest first: up to `limit` (1 to 100), with `before` only those older than that version."""
        given = {"limit": limit, "before": before}
        query = {name: number for name, number in given.items() if number is not None}
        async with self._requests.open("GET", f"{_PATH}/history", params=query) as reply:
            return await reply.history()

    async def _events(self, last_event_id: str | None) -> AsyncGenerator[Event | Heartbeat]:
        """Yield the current setting, then each change, until the stream ends.

        Unless `last_event_id` is None, start with the change after that event instead.
        """
        headers = {"Accept": "text/event-stream"} | ({} if last_event_id is None else {"Last-Event-ID": last_event_id})
        async with (
            self._requests.open(
                "GET", f"{_PATH}/events", headers=headers, stream_timeout=self._STREAM_TIMEOUT
            ) as reply,
            contextlib.aclosing(reply.messages(last_event_id)) as messages,
        ):
            async for message in messages:
                yield message

    def follow(self) -> AsyncGenerator[Message]:
        """Yield the current setting, then each change, once and in order. Reconnect after every error, without end.

        `Disconnected` has the error. Leave the loop if another attempt cannot succeed.
        """
        return self._follow(resume=True)

    async def _follow(self, *, resume: bool) -> AsyncGenerator[Message]:
        """Follow the setting.

        Without `resume`, each connection begins with the current setting, and missed changes are skipped.
        """
        last: str | None = None
        wait = self._FIRST_WAIT
        while True:
            error: OmsConfigError = TransportError(f"the event stream of {self._requests.address} ended")
            try:
                async with contextlib.aclosing(self._events(last)) as messages:
                    async for message in messages:
                        wait = self._FIRST_WAIT
                        if resume and isinstance(message, Event):
                            last = message.id
                        yield message
            except OmsConfigError as problem:
                error = problem
            # Clients that lost their connections at the same moment must not all reconnect at once.
            pause = wait * random.SystemRandom().uniform(0.5, 1)
            yield Disconnected(error, pause)
            await asyncio.sleep(pause)
            wait = min(2 * wait, self._LONGEST_WAIT)

    async def keep_copy(self, *, max_age: float = MAX_AGE, wait: float = FIRST_VALUE) -> SettingCopy:
        """Return a local copy of the setting that follows each change until the client is closed.

        The copy returns no value that is older than `max_age` seconds. This method waits up to `wait` seconds for the
        first value. Without it, the copy is returned too, and continues to try.
        """
        copy = SettingCopy(self._requests.address, max_age)
        # A copy that resumed could not know whether the changes that it missed have all arrived.
        task = asyncio.create_task(keep_current(copy, self._follow(resume=False)))
        self._copying.add(task)
        task.add_done_callback(self._copying.discard)  # so that asyncio logs an error that ends it at once
        await wait_for_value(copy, wait)
        return copy


def _check(enabled: object, if_version: object, reason: object) -> None:
    """Raise TypeError or ValueError for an argument of `set` that cannot be sent."""
    if not isinstance(enabled, bool):
        raise TypeError(f"the new value must be a bool, not {type(enabled).__name__}")
    if if_version is not None and type(if_version) is not int:
        raise TypeError(f"if_version must be an int, not {type(if_version).__name__}")
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"the reason must be a str, not {type(reason).__name__}")
    if reason is not None and any("\ud800" <= each <= "\udfff" for each in reason):
        raise ValueError("the reason has a surrogate, which UTF-8 cannot encode")
