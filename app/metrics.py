"""The Prometheus registry, for one process or for all workers together. Other modules define the metrics."""

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.core import GaugeMetricFamily

from app.version import VERSION

# How often a worker checks if its files are still there.
_CHECK_SECONDS: Final = 1.0

# Of the library's files, such as "histogram_3.db", and of our locks, such as "3.lock".
_FILE_NAME: Final = re.compile(r"(?:\w+_)?([0-9]{1,9})\.(?:db|lock)")

_log = logging.getLogger(__name__)


class Metrics:
    """Creates metrics and exposes their values.

    With a `directory`, which all workers share, the values are sums over all workers. They continue when a worker is
    replaced. The environment variable PROMETHEUS_MULTIPROC_DIR must name the same directory. `keep_files` repairs it.
    Without a `directory`, the values are those of this process, and counting costs less.
    """

    def __init__(self, directory: str | None = None) -> None:
        disable_created_metrics()  # they would add one series per metric
        self._process_registry = CollectorRegistry()
        self._exposed_registry = self._process_registry
        self._files: _SharedFiles | None = None
        if directory is not None:
            self._files = files = _SharedFiles(Path(directory))
            values.ValueClass = files.value_class()
            self._exposed_registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._exposed_registry, directory)
        # Info keeps its value in memory, so it is neither a sum nor that of an earlier worker.
        build = Info("external_oms_build", "The version of the service. Always 1.", registry=self._exposed_registry)
        build.info({"version": VERSION})

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        """Return a new counter."""
        return Counter(name, description, labels, registry=self._process_registry)

    def gauge(self, name: str, description: str) -> Gauge:
        """Return a new gauge with the value 0, also if the worker continues the files of a dead one."""
        gauge = Gauge(name, description, registry=self._process_registry, multiprocess_mode="sum")
        gauge.set(0)
        return gauge

    def computed_gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Expose a gauge whose value is that of `value()` in the process that exposes it. It is not a sum."""
        self._exposed_registry.register(_ComputedGauge(name, description, value))

    def histogram(self, name: str, description: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        """Return a new histogram. `bounds` are the upper bounds of its buckets, in ascending order."""
        return Histogram(name, description, labels, registry=self._process_registry, buckets=bounds)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4. It reads files, so do not call it on the event loop."""
        return generate_latest(self._exposed_registry)

    async def keep_files(self) -> None:
        """Write the values of this process to new files whenever its files in `directory` were removed.

        Return if there is no directory, or after the first error: a value may be lost then. Run it on the event loop
        that changes the values.
        """
        try:
            while self._files is not None:
                if self._files.are_removed():
                    self._files.move()
                    _log.warning("metrics files were removed")
                await asyncio.sleep(_CHECK_SECONDS)
        except OSError as error:
            _log.error("metrics files cannot be written", extra={"cause": str(error)})


class _ComputedGauge:
    """A collector of one gauge, which asks for its value at each exposition."""

    def __init__(self, name: str, description: str, value: Callable[[], float]) -> None:
        self._name, self._description, self._value = name, description, value

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauge."""
        return [GaugeMetricFamily(self._name, self._description, self._value())]


class _SharedFiles:
    """The files of one worker in the directory that all workers share, and the values in them.

    prometheus-client 0.26 names files by process ID and keeps those of dead workers, so that each restart adds files.
    With our numbers, a new worker continues the files of a dead one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        # Those of dead workers first.
        self._number, self._lock = self._lock_first(itertools.chain(sorted(self._used_numbers()), itertools.count()))
        self._values: list[values.MutexValue] = []
        self._inodes: dict[str, int] = {}

    def value_class(self) -> type[values.MutexValue]:
        """Return the class of the library's values that are in these files."""
        # Under a new number, the library opens new files and reads all values from them.
        library_class: type[values.MutexValue] = values.MultiProcessValue(lambda: self._number)
        created = self._values

        class Value(library_class):  # type: ignore[valid-type,misc]  # mypy takes no variable as a base class
            def __init__(self, *arguments: object, **options: object) -> None:
                super().__init__(*arguments, **options)
                created.append(self)

        return Value

    def are_removed(self) -> bool:
        """Return True if a file of this worker was removed or replaced since the first call."""
        inodes = self._find()
        if not self._inodes.items() <= inodes.items():
            return True
        self._inodes = inodes
        return False

    def move(self) -> None:
        """Continue all values in the files of a number that no worker has used."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        unused = itertools.count(max(self._used_numbers() | {self._number}) + 1)
        amounts = [value.get() for value in self._values]
        for name in dict(self._inodes.items() & self._find().items()):  # the others belong to another worker by now
            (self._directory / name).unlink(missing_ok=True)  # its values would count twice
        os.close(self._lock)
        self._number, self._lock = self._lock_first(unused)
        for value, amount in zip(self._values, amounts, strict=True):
            value.set(amount)
        self._inodes = self._find()

    def _find(self) -> dict[str, int]:
        """Return the files of this number and their inodes."""
        inodes = {}
        with contextlib.suppress(FileNotFoundError):  # the directory was removed
            inodes = {file.name: file.inode() for file in os.scandir(self._directory)}
        lock, ending = f"{self._number}.lock", f"_{self._number}.db"
        return {name: inode for name, inode in inodes.items() if name == lock or name.endswith(ending)}

    def _used_numbers(self) -> set[int]:
        """Return the numbers in the names of all files. Those of other programs are ignored."""
        names = [_FILE_NAME.fullmatch(file.name) for file in self._directory.iterdir()]
        return {int(name[1]) for name in names if name}

    def _lock_first(self, numbers: Iterable[int]) -> tuple[int, int]:
        """Return the first number that no other live process has locked, and the descriptor of its lock."""
        for number in numbers:
            lock = os.open(self._directory / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it when the process ends
            except BlockingIOError:
                os.close(lock)
            else:
                return number, lock
        raise AssertionError
