"""Many listeners at little cost: one process, one thread, and a socket for each."""

import multiprocessing
import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NoReturn, Self

from tests.contract import PATH

# Listeners that wait for their first event at the same time; more of them would overflow the server's backlog.
_MAX_OPENING = 64
_SECONDS_TO_WAIT = 120.0
# What each event has once, and a comment never.
_EVENT = b"data: "


class Listeners:
    """Listeners to the server on `port`, one with each token, in a process of their own.

    They have had their first event once the block begins, and leave where it ends.
    """

    def __init__(self, port: int, tokens: Sequence[str]) -> None:
        context = multiprocessing.get_context("fork")  # at once, and without importing anything anew
        self._heard, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_listen, args=(port, tokens, sender), daemon=True)
        self._process.start()
        sender.close()  # the process has its own; where that ends, so does the pipe

    def __enter__(self) -> Self:
        try:
            self.last_heard()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.join()
        self._heard.close()

    def last_heard(self) -> float:
        """Waits until the last of them has had one event more, and says when that was, by the monotonic clock."""
        if not self._heard.poll(_SECONDS_TO_WAIT):
            raise TimeoutError(f"not every listener has had its event within {_SECONDS_TO_WAIT:.0f} s")
        try:
            return float(self._heard.recv())
        except EOFError:
            raise ConnectionError("a listener was cut off; its process says which") from None


class _Listener:
    """One connection, and how many events came over it."""

    def __init__(self, port: int, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.events = 0
        self._rest = b""  # of what came last, where an event may have begun
        head = f"GET {PATH}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        self.socket.sendall(head.encode())

    def receive(self) -> range:
        """The numbers of the events that have come; the first of all is 0."""
        received = self.socket.recv(65536)
        data = self._rest + received
        if not received or (not self.events and b"HTTP/1." in data and b" 200 " not in data):
            raise ConnectionError(f"a listener was cut off after {self.events} events: {data.decode()}")
        first, self.events = self.events, self.events + data.count(_EVENT)
        self._rest = data[1 - len(_EVENT) :]
        return range(first, self.events)


def _listen(port: int, tokens: Sequence[str], heard: Connection) -> NoReturn:
    """Listens until the process is ended, and sends the time whenever all have had one event more."""
    waiting = list(reversed(tokens))
    listeners: dict[int, _Listener] = {}
    poll = select.epoll()
    had = Counter[int]()

    def open_one() -> None:
        listener = _Listener(port, waiting.pop())
        listeners[listener.socket.fileno()] = listener
        poll.register(listener.socket, select.EPOLLIN)

    for _ in range(min(_MAX_OPENING, len(waiting))):
        open_one()
    while True:
        for descriptor, _ in poll.poll():
            for number in listeners[descriptor].receive():
                had[number] += 1
                if had[number] == len(tokens):
                    heard.send(time.monotonic())
                if number == 0 and waiting:
                    open_one()
