"""The Prometheus registry, for one process or for all workers together. Other modules define the metrics."""

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
    """Creates metrics and exposes their values.

    With a `directory`, which all workers share, the values are sums over all workers. They continue when a worker is
    replaced. The environment variable PROMETHEUS_MULTIPROC_DIR must name the same directory. Without a `directory`,
    the values are those of this process, and counting costs less.
    """

    def __init__(self, directory: str | None = None) -> None:
        disable_created_metrics()  # they would add one series per metric
        self._process_registry = CollectorRegistry()
        self._exposed_registry = self._process_registry
        if directory is not None:
            number = _lock_worker_number(Path(directory))
            # prometheus-client 0.26 names the files by process ID and keeps those of dead workers, so that each
            # restart adds files. With our numbers, a new worker continues the files of a dead one.
            values.ValueClass = values.MultiProcessValue(lambda: number)
            self._exposed_registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._exposed_registry, directory)

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        """Return a new counter."""
        return Counter(name, description, labels, registry=self._process_registry)

    def gauge(self, name: str, description: str) -> Gauge:
        """Return a new gauge with the value 0, also if the worker continues the files of a dead one."""
        gauge = Gauge(name, description, registry=self._process_registry, multiprocess_mode="sum")
        gauge.set(0)
        return gauge

    def histogram(self, name: str, description: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        """Return a new histogram. `bounds` are the upper bounds of its buckets, in ascending order."""
        return Histogram(name, description, labels, registry=self._process_registry, buckets=bounds)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4. It reads files, so do not call it on the event loop."""
        return generate_latest(self._exposed_registry)


def _lock_worker_number(directory: Path) -> int:
    """Return the lowest number that no other live process has locked in `directory`, and lock it."""
    for number in itertools.count():
        lock = os.open(directory / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it when the process ends
        except BlockingIOError:
            os.close(lock)
        else:
            return number
    raise AssertionError
