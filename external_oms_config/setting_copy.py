"""A local copy of the setting, with its age."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator

from external_oms_config.errors import OmsConfigError, StaleCopy
from external_oms_config.records import Disconnected, Event, Message, Setting


class SettingCopy:
    """A copy of the current setting in memory. Any thread may read it.

    An event or a comment on the event stream proves that the value is current, so its age begins there. `problem` is
    the error that ended the connection or prevents it, or None while there is one.
    """

    def __init__(self, address: str, max_age: float) -> None:
        self.problem: OmsConfigError | None = None
        self._address = address
        self._max_age = max_age
        self._setting: Setting | None = None
        self._proved_at = -math.inf
        self._has_value = asyncio.Event()

    def get(self) -> Setting:
        """Return the setting. Raise StaleCopy if there is none yet, or if it is older than `max_age`."""
        age, setting = self.age, self._setting
        if setting is None or age > self._max_age:
            value = "has no value yet" if setting is None else f"is {age:.0f} s old, more than {self._max_age:g} s"
            reason = self.problem or "nothing arrives on the event stream"
            raise StaleCopy(f"the copy of the setting at {self._address} {value}: {reason}") from self.problem
        return setting

    @property
    def age(self) -> float:
        """The age of the value in seconds, infinite without a value."""
        return time.monotonic() - self._proved_at

    @property
    def last_known(self) -> Setting | None:
        """The last value, however old, or None if there was none."""
        return self._setting


async def keep_current(copy: SettingCopy, messages: AsyncGenerator[Message]) -> None:
    """Give `copy` the value of each event."""
    async for message in messages:
        if isinstance(message, Disconnected):
            copy.problem = message.error
            continue
        if isinstance(message, Event):
            copy._setting = Setting(message.change.enabled, message.change.version, message.tenant)
            copy._has_value.set()
        copy._proved_at = time.monotonic()  # after the value, because `get` reads it before the value
        copy.problem = None


async def wait_for_value(copy: SettingCopy, seconds: float) -> None:
    """Wait until `copy` has a value, at most that many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await copy._has_value.wait()
