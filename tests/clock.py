"""A clock that a test moves."""


class Clock:
    """Returns `now` as the time."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
