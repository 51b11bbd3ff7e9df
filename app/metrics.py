"""Numbers for Prometheus, of one process or of all workers together; what is counted is known elsewhere."""

import fcntl
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)


class Metrics:
    """Makes metrics, and tells the numbers of all that it made.

    With a `directory`, which workers share and the environment has to name as well, the numbers are the sums of all
    workers, and go on where a worker was replaced. Without one they are this process's, and cheaper to count.
    """

    def __init__(self, directory: str | None = None) -> None:
        disable_created_metrics()  # one more series for each, which says when it began
        self._own = CollectorRegistry()
        self._all = self._own
        if directory is not None:
            place = _take_place(Path(directory))
            # prometheus-client 0.26 would number the files by process, and keep those of the dead for their counts:
            # one more for each worker that ever died. A worker that takes a dead one's place goes on with its files.
            values.ValueClass = values.MultiProcessValue(lambda: place)
            self._all = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._all, directory)

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        """A number that only rises."""
        return Counter(name, meaning, labels, registry=self._own)

    def gauge(self, name: str, meaning: str) -> Gauge:
        """A number of what is there now: nothing, in a worker that begins."""
        gauge = Gauge(name, meaning, registry=self._own, multiprocess_mode="sum")
        gauge.set(0)
        return gauge

    def histogram(self, name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        """How many were at most so large, for each of `bounds`, which rise."""
        return Histogram(name, meaning, labels, registry=self._own, buckets=bounds)

    def exposition(self) -> bytes:
        """All numbers, in Prometheus' text format 0.0.4. Reads files: not for the event loop."""
        return generate_latest(self._all)


def _take_place(directory: Path) -> int:
    """The first number in `directory` that no living process has, for as long as this process lives."""
    for place in itertools.count():
        lock = os.open(directory / f"{place}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends
        except BlockingIOError:
            os.close(lock)
        else:
            return place
    raise AssertionError
