"""Many subscribers at low cost: one process, one thread and one socket per subscriber."""

import multiprocessing
import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NoReturn, Self

from tests.contract import PATH

# Subscribers that connect at the same time. More would overflow the server's listen queue.
_MAX_CONNECTING = 64
_EVENT_TIMEOUT = 120.0
# Each event contains this once, and a comment never does.
_EVENT = b"data: "


class Subscribers:
    """Subscribers to the server on `port`, one per token, in a separate process. Use it as a context manager.

    When the block starts, each has received its first event. When the block ends, they disconnect.
    """

    def __init__(self, port: int, tokens: Sequence[str]) -> None:
        context = multiprocessing.get_context("fork")  # starts fast, because it imports nothing again
        self._times, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(port, tokens, sender), daemon=True)
        self._process.start()
        sender.close()  # the process has its own copy; when it ends, `recv` raises EOFError

    def __enter__(self) -> Self:
        try:
            self.wait_for_next_event()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.join()
        self._times.close()

    def wait_for_next_event(self) -> float:
        """Wait until each subscriber has received one more event. Return the time of the last, by `time.monotonic`.

        Raises TimeoutError after 120 seconds, and ConnectionError if a subscriber was disconnected.
        """
        if not self._times.poll(_EVENT_TIMEOUT):
            raise TimeoutError(f"not every subscriber received its event within {_EVENT_TIMEOUT:.0f} s")
        try:
            return float(self._times.recv())
        except EOFError:
            raise ConnectionError("a subscriber was disconnected; the traceback above has the reason") from None


class _Subscriber:
    """One connection, and the number of events received on it."""

    def __init__(self, port: int, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.events = 0
        self._unparsed = b""  # the end of the last data, which may be the start of `_EVENT`
        head = f"GET {PATH}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        self.socket.sendall(head.encode())

    def receive(self) -> range:
        """Receive data and return the numbers of the events in it. The first event has the number 0."""
        received = self.socket.recv(65536)
        data = self._unparsed + received
        if not received or (not self.events and b"HTTP/1." in data and b" 200 " not in data):
            raise ConnectionError(f"a subscriber was disconnected after {self.events} events: {data.decode()}")
        first, self.events = self.events, self.events + data.count(_EVENT)
        self._unparsed = data[1 - len(_EVENT) :]
        return range(first, self.events)


def _run(port: int, tokens: Sequence[str], sender: Connection) -> NoReturn:
    """Receive events until the process is terminated. Send the time whenever all subscribers have one more event."""
    waiting = list(reversed(tokens))
    subscribers: dict[int, _Subscriber] = {}
    poll = select.epoll()
    received = Counter[int]()

    def open_one() -> None:
        subscriber = _Subscriber(port, waiting.pop())
        subscribers[subscriber.socket.fileno()] = subscriber
        poll.register(subscriber.socket, select.EPOLLIN)

    for _ in range(min(_MAX_CONNECTING, len(waiting))):
        open_one()
    while True:
        for descriptor, _ in poll.poll():
            for number in subscribers[descriptor].receive():
                received[number] += 1
                if received[number] == len(tokens):
                    sender.send(time.monotonic())
                if number == 0 and waiting:
                    open_one()
