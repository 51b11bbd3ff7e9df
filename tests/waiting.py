"""Waiting for what comes later."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import redis

# In seconds. What a test waits for comes much sooner, unless the machine is busy with other things.
PATIENCE: Final = 60.0
# In seconds: what a busy machine may add to a time that the service promises.
BUSY: Final = 5.0


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Return True once `condition` holds, and False if it does not within `seconds`.

    It does not hold while a store does not answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
