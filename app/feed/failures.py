"""What those who wait, and the log, learn of a failure."""

import asyncio


def fail(future: asyncio.Future[None], error: Exception) -> None:
    """Fails `future`, unless it is done."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # there may be nobody who waits for it


def cause(error: Exception) -> str:
    """The error and what it was raised from, for the log."""
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)
