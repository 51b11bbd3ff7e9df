"""The command `oms-config` as a process of its own, and whatever may answer it."""

import contextlib
import json
import socket
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
    """Runs it to its end, and sees that it told neither its token nor a traceback."""
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
    """The JSON object of a verb that did what it was asked for."""
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def failure(done: "subprocess.CompletedProcess[str]", status: int) -> str:
    """The one line of a verb that failed."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.startswith("error   ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error   ").rstrip("\n")


def watch(directory: Path, *arguments: str, url: str, token: str) -> WatchedProcess:
    """Start `oms-config watch`."""
    command = [*COMMAND, "watch", *arguments]
    return WatchedProcess(command, directory / "stderr", OMS_CONFIG_URL=url, OMS_CONFIG_TOKEN=token)


class Stranger:
    """Answers each connection with the same bytes, whatever was asked; None is never. Keeps what it was asked."""

    def __init__(self, reply: bytes | None, *, then_close: bool = True) -> None:
        self._reply = reply
        self._closes = then_close
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.was_asked = threading.Event()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listener, *self._held):
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(PATIENCE)
                self.asked.append(client.recv(65536))
                self.was_asked.set()
                if self._reply is not None:
                    client.sendall(self._reply)
                if self._closes and self._reply is not None:
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_WR)
                        client.recv(65536)  # what is unread would make the end a reset
                    client.close()
                else:
                    self._held.append(client)


def http_reply(status: str, content_type: str = "application/json", body: str = "", **headers: str) -> bytes:
    """An answer; an underscore stands for the hyphen of a header."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", body]).encode()
