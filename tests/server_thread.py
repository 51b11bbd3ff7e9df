"""An application of the test behind the server's protocol, in a thread of this process."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from app.server.http_protocol import HttpProtocol


@dataclass(frozen=True)
class ServerThread:
    """A server that runs, and its address."""

    server: uvicorn.Server
    address: tuple[str, int]


@contextlib.contextmanager
def serving(
    app: ASGIApp, *, limits: Mapping[str, float] | None = None, send_buffer: int | None = None, keep_alive: int = 5
) -> Iterator[ServerThread]:
    """Serve `app` while the block runs. `limits` replace those of the protocol, which are in seconds."""
    protocol = type("HastyProtocol", (HttpProtocol,), dict(limits or {}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        config = uvicorn.Config(
            app, http=protocol, loop="uvloop", lifespan="off", log_config=None, ws="none", timeout_keep_alive=keep_alive
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield ServerThread(server, listener.getsockname())
        finally:
            server.should_exit = True
            thread.join()
