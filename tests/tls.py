"""A relay that speaks TLS to the service and plain TCP to Redis."""

import contextlib
import socket
import ssl
import threading
from typing import Self

import trustme


class TlsRelay:
    """Forwards TLS connections to a local port. Its certificate is for `host`."""

    def __init__(self, target: int, authority: trustme.CA, host: str = "127.0.0.1") -> None:
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(host).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                with contextlib.suppress(OSError):  # a client that does not trust the certificate
                    secured = self._context.wrap_socket(client, server_side=True)
                    store = socket.create_connection(("127.0.0.1", self._target))
                    self._sockets += [secured, store]
                    for source, target in ((secured, store), (store, secured)):
                        self._threads.append(threading.Thread(target=self._forward, args=(source, target)))
                        self._threads[-1].start()

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
