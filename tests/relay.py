"""A TCP relay between the service and Redis that cuts connections around EXEC, or hangs."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Literal, Self

Rule = Literal["forward", "cut before EXEC", "cut after EXEC", "hang"]


class Relay:
    """Forwards TCP to a local port. A cut takes effect once, on the next EXEC. "hang" lasts.

    With `refuse_afterwards`, the relay closes every new connection after a cut, so Redis stays unreachable.
    """

    def __init__(self, target: int) -> None:
        self.rule: Rule = "forward"
        self.refuse_afterwards = False
        self._target = target
        self._refusing = False
        self._stopped = threading.Event()
        self._sockets: list[socket.socket] = []
        self._forgotten: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(self._listener)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._shut(*self._sockets)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def http_url(self) -> str:
        """The address, if the target is the service."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all open connections. New ones are forwarded."""
        self._shut(*self._sockets[1:])

    def forget(self) -> None:
        """Drop all data of the open connections silently, as a firewall that has forgotten them. New ones work."""
        self._forgotten.update(self._sockets[1:])

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopped.is_set():
                client, _ = self._listener.accept()
                self._sockets.append(client)
                if self._refusing:
                    self._shut(client)
                    continue
                store = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(store)
                executed = threading.Event()
                self._start(self._to_store, client, store, executed)
                self._start(self._from_store, client, store, executed)

    def _to_store(self, client: socket.socket, store: socket.socket, executed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.rule == "hang" or client in self._forgotten:
                    self._stopped.wait()
                if b"EXEC" in data and self.rule != "forward":
                    rule, self.rule, self._refusing = self.rule, "forward", self.refuse_afterwards
                    if rule == "cut before EXEC":
                        break
                    executed.set()
                store.sendall(data)
        self._shut(client, store)

    def _from_store(self, client: socket.socket, store: socket.socket, executed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            # The first data after an EXEC is its reply. So Redis has executed it before the relay cuts the connection.
            while (data := store.recv(65536)) and not executed.is_set():
                if client in self._forgotten:
                    self._stopped.wait()
                client.sendall(data)
        self._shut(client, store)

    @staticmethod
    def _shut(*sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
