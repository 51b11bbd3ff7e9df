"""Waiting for conditions, and how long tests wait."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import redis

# In seconds: the limit of each wait. A condition holds much sooner, unless the machine is busy.
PATIENCE: Final = 60.0
# In seconds: the delay that a busy machine may add to a time that the service promises.
BUSY: Final = 5.0


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Return True once `condition` holds, and False if it does not within `seconds`.

    An error of Redis counts as a condition that does not hold yet.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
