"""Runs the command `oms-config` as a process, against the service or a fake server."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from tests.processes import ROOT, WatchedProcess, clean_environment
from tests.waiting import PATIENCE

COMMAND = (sys.executable, "-m", "app.cli")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def oms_config(
    *arguments: str, url: str = "", token: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, and check that its output has neither the token nor a traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=clean_environment({"OMS_CONFIG_URL": url, "OMS_CONFIG_TOKEN": token, **environment}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert not token or token not in done.stdout + done.stderr
    return done


def answer(done: "subprocess.CompletedProcess[str]") -> Any:
    """Return the JSON object that a successful verb printed."""
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def failure(done: "subprocess.CompletedProcess[str]", status: int) -> str:
    """Return the one error line of a verb that failed."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.startswith("error   ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error   ").rstrip("\n")


def watch(directory: Path, *arguments: str, url: str, token: str) -> WatchedProcess:
    """Start `oms-config watch`."""
    command = [*COMMAND, "watch", *arguments]
    return WatchedProcess(command, directory / "stderr", OMS_CONFIG_URL=url, OMS_CONFIG_TOKEN=token)


class FakeServer:
    """A server that sends `reply` to every connection and records the requests. None sends nothing.

    With `reset`, it resets every connection after the first bytes.
    """

    def __init__(self, reply: bytes | None, *, port: int = 0, then_close: bool = True, reset: bool = False) -> None:
        self._reset = reset
        self.reply = reply
        self._then_close = then_close
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.has_request = threading.Event()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._socket, *self._held):
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                client.settimeout(PATIENCE)
                self.requests.append(client.recv(65536))
                self.has_request.set()
                if self._reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                    continue
                if self.reply is not None:
                    client.sendall(self.reply)
                if self._then_close and self.reply is not None:
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_WR)
                        client.recv(65536)  # unread bytes would turn the close into a reset
                    client.close()
                else:
                    self._held.append(client)


def http_reply(status: str, content_type: str = "application/json", body: str = "", **headers: str) -> bytes:
    """Return an HTTP response. Underscores in header names become hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", body]).encode()
