"""One server under load, and what is measured of it."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection

from bench.listeners import Listeners
from bench.processes import cpu_seconds, open_files, proportional_kib
from tests.contract import PATH
from tests.processes import Service, make_token

# In seconds.
_SETTLE = 1.0  # after listeners have come or gone
_SECONDS_TO_LEAVE = 30.0
_KEPT = 20  # descriptors that a pool of connections may keep


@dataclass(frozen=True)
class Gets:
    """What GETs took: the worker's processor for one, and the latency of each, in seconds."""

    cpu: float
    latencies: list[float]


@dataclass
class Round:
    """The same GETs with nobody listening, beside listeners, and beside listeners whose comments are sent just then."""

    alone: Gets
    silent: Gets
    commented: Gets


class Server:
    """The server in `process`, which has one worker: itself. All that was measured is in seconds and KiB."""

    def __init__(self, process: Service) -> None:
        self.kib = 0.0  # of each listener
        self.idle = 0.0  # share of a processor
        self.after_answer: list[float] = []
        self.after_request: list[float] = []
        self.rounds: list[Round] = []
        self._process = process
        self._enabled = False

    @contextlib.contextmanager
    def listeners(self, tokens: Sequence[str]) -> Iterator[Listeners]:
        """Listeners with these tokens; the server has forgotten them when the block is left."""
        files = open_files(self._process.pid)
        with Listeners(self._process.port, tokens) as listeners:
            time.sleep(_SETTLE)
            yield listeners
        deadline = time.monotonic() + _SECONDS_TO_LEAVE
        while open_files(self._process.pid) > files + _KEPT and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(_SETTLE)

    def get(self, count: int, connections: int) -> Gets:
        """So many GETs of a tenant that nobody listens to, one at a time, on so many connections in turn."""
        token = make_token("another")
        opened = [HTTPConnection("127.0.0.1", self._process.port) for _ in range(connections)]
        for connection in opened:
            _ask(connection, "GET", token)
        latencies = []
        cpu = cpu_seconds(self._process.pid)
        for number in range(count):
            began = time.monotonic()
            _ask(opened[number % connections], "GET", token)
            latencies.append(time.monotonic() - began)
        cpu = cpu_seconds(self._process.pid) - cpu
        for connection in opened:
            connection.close()
        return Gets(cpu / count, latencies)

    def measure_memory(self, tokens: Sequence[str], idle_seconds: float) -> None:
        """What each listener adds to the worker's memory, and what all of them take of a processor while idle."""
        pid = self._process.pid
        before = proportional_kib(pid)
        with self.listeners(tokens):
            self.kib = (proportional_kib(pid) - before) / len(tokens)
            cpu = cpu_seconds(pid)
            time.sleep(idle_seconds)
            self.idle = (cpu_seconds(pid) - cpu) / idle_seconds

    def measure_change(self, listeners: Listeners, token: str) -> None:
        """How long after the answer to a change, and after its request, the last of the listeners has the event."""
        self._enabled = not self._enabled
        with contextlib.closing(HTTPConnection("127.0.0.1", self._process.port)) as connection:
            connection.connect()
            began = time.monotonic()
            _ask(connection, "POST", token, json.dumps({"enabled": self._enabled}))
            answered = time.monotonic()
        heard = listeners.last_heard()
        self.after_answer.append(max(0.0, heard - answered))  # it may have it before the answer has come
        self.after_request.append(heard - began)

    def measure_gets(self, tokens: Sequence[str], count: int, connections: int, comments_after: float) -> None:
        """One round. Listeners get comments so many seconds after they have come."""
        alone = self.get(count, connections)
        began = time.monotonic()
        with self.listeners(tokens):
            silent = self.get(count, connections)
            time.sleep(max(0.0, began + comments_after - time.monotonic()))
            self.rounds.append(Round(alone, silent, self.get(count, connections)))


def _ask(connection: HTTPConnection, method: str, token: str, body: str | None = None) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, PATH, body, headers)
    with connection.getresponse() as answer:
        content = answer.read()
        assert answer.status == HTTPStatus.OK, f"{method} was answered {answer.status}: {content.decode()}"
