"""Measurements of one server under load."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection

from bench.processes import cpu_seconds, open_files, proportional_kib
from bench.subscribers import Subscribers
from tests.contract import PATH
from tests.processes import Service, make_token

# In seconds.
_SETTLE_SECONDS = 1.0  # pause after subscribers have connected or disconnected
_DISCONNECT_TIMEOUT = 30.0
_MAX_POOLED = 20  # file descriptors that a connection pool may keep open


@dataclass(frozen=True)
class Gets:
    """The cost of some GETs in seconds: the worker's CPU time per GET, and the latency of each GET."""

    cpu: float
    latencies: list[float]


@dataclass
class Round:
    """The same GETs without subscribers, with idle subscribers, and while the server sends comments to subscribers."""

    alone: Gets
    silent: Gets
    commented: Gets


class Server:
    """The server in `process`, which is its only worker. The attributes are measured figures, in seconds or KiB."""

    def __init__(self, process: Service) -> None:
        self.kib = 0.0  # memory per subscriber
        self.idle = 0.0  # CPU seconds per second of all idle subscribers
        self.after_answer: list[float] = []
        self.after_request: list[float] = []
        self.rounds: list[Round] = []
        self._process = process
        self._enabled = False

    @contextlib.contextmanager
    def subscribers(self, tokens: Sequence[str]) -> Iterator[Subscribers]:
        """Connect one subscriber per token. After the block, wait until the server has closed their connections."""
        files = open_files(self._process.pid)
        with Subscribers(self._process.port, tokens) as subscribers:
            time.sleep(_SETTLE_SECONDS)
            yield subscribers
        deadline = time.monotonic() + _DISCONNECT_TIMEOUT
        while open_files(self._process.pid) > files + _MAX_POOLED and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(_SETTLE_SECONDS)

    def get(self, count: int, connections: int) -> Gets:
        """Send `count` GETs one after the other, on `connections` connections in turn, for a tenant without events."""
        token = make_token("another")
        opened = [HTTPConnection("127.0.0.1", self._process.port) for _ in range(connections)]
        for connection in opened:
            _request(connection, "GET", token)
        latencies = []
        cpu = cpu_seconds(self._process.pid)
        for number in range(count):
            began = time.monotonic()
            _request(opened[number % connections], "GET", token)
            latencies.append(time.monotonic() - began)
        cpu = cpu_seconds(self._process.pid) - cpu
        for connection in opened:
            connection.close()
        return Gets(cpu / count, latencies)

    def measure_memory(self, tokens: Sequence[str], idle_seconds: float) -> None:
        """Measure the memory per subscriber, and the CPU time of all of them during `idle_seconds` without events."""
        pid = self._process.pid
        before = proportional_kib(pid)
        with self.subscribers(tokens):
            self.kib = (proportional_kib(pid) - before) / len(tokens)
            cpu = cpu_seconds(pid)
            time.sleep(idle_seconds)
            self.idle = (cpu_seconds(pid) - cpu) / idle_seconds

    def measure_change(self, subscribers: Subscribers, token: str) -> None:
        """Measure the time from a change's request, and from its response, until every subscriber has the event."""
        self._enabled = not self._enabled
        with contextlib.closing(HTTPConnection("127.0.0.1", self._process.port)) as connection:
            connection.connect()
            began = time.monotonic()
            _request(connection, "POST", token, json.dumps({"enabled": self._enabled}))
            answered = time.monotonic()
        received_at = subscribers.wait_for_next_event()
        self.after_answer.append(max(0.0, received_at - answered))  # events may arrive before the response
        self.after_request.append(received_at - began)

    def measure_gets(self, tokens: Sequence[str], count: int, connections: int, comments_after: float) -> None:
        """Measure one round. The server sends comments `comments_after` seconds after subscribers have connected."""
        alone = self.get(count, connections)
        began = time.monotonic()
        with self.subscribers(tokens):
            silent = self.get(count, connections)
            time.sleep(max(0.0, began + comments_after - time.monotonic()))
            self.rounds.append(Round(alone, silent, self.get(count, connections)))


def _request(connection: HTTPConnection, method: str, token: str, body: str | None = None) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, PATH, body, headers)
    with connection.getresponse() as answer:
        content = answer.read()
        assert answer.status == HTTPStatus.OK, f"{method}: status {answer.status}: {content.decode()}"
