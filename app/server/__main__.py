"""Entry point of the web process, `python -m app.server`: checks the settings once, then runs uvicorn."""

import contextlib
import logging
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

import uvicorn

from app.logs import install_log_hooks, logging_config, startup_error
from app.server.graceful_shutdown import serve
from app.server.http_protocol import HttpProtocol
from app.server.listen_socket import listen
from app.settings import METRICS_DIRECTORY, Settings, SettingsError, unknown_variables
from app.version import VERSION


def main() -> None:
    """Serve until a signal stops the process. If it cannot start, exit with one line on stderr."""
    try:
        settings = Settings.read(os.environ)
        listening_socket = listen(settings.port)
    except SettingsError as error:
        sys.exit(startup_error(str(error), os.environ.get("LOG_FORMAT", "").lower()))
    except OSError as error:
        reason = f"cannot listen on port {settings.port} (PORT): {os.strerror(error.errno or 0)}"
        sys.exit(startup_error(reason, settings.log_format))
    config = uvicorn.Config(
        "app.asgi:application",
        http=HttpProtocol,
        ws="none",
        loop="uvloop",
        # With "auto", an application that fails at startup would answer every request with 500.
        lifespan="on",
        workers=settings.workers,
        log_config=logging_config(settings.log_format, settings.log_level),
        log_level=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        # The side that closes an idle connection first may cut off a request.
        timeout_keep_alive=settings.keep_alive,
    )
    _allow_many_connections()
    install_log_hooks()
    log = logging.getLogger(__name__)
    log.info("listening", extra={"version": VERSION, **settings.described()})
    for variable, similar in unknown_variables(os.environ).items():
        log.warning("unknown variable", extra={"variable": variable, **({"similar": similar} if similar else {})})
    with _metrics_directory(settings):
        serve(config, listening_socket)


# Files in memory. A container with a read-only root can write here, and no cleaner of old files comes here.
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a new directory with a random name is made in it
# Of one worker's files, at most.
_METRICS_BYTES: Final = 1 << 20


@contextlib.contextmanager
def _metrics_directory(settings: Settings) -> Iterator[None]:
    """Provide a temporary directory in which several workers share their metrics, named in the environment.

    It is in TMPDIR if that is set, otherwise in memory, if the system allows it and has enough. Exit with one line on
    stderr if no directory is writable. One worker needs no directory. Without METRICS_TOKEN, no metrics are collected.
    """
    os.environ.pop(METRICS_DIRECTORY, None)
    if settings.workers == 1 or settings.metrics_token is None:
        yield
        return
    is_memory_used = (
        "TMPDIR" not in os.environ
        and os.access(_SHARED_MEMORY, os.W_OK)
        # A process that writes to a mapped file gets SIGBUS if the file system is full.
        and shutil.disk_usage(_SHARED_MEMORY).free >= settings.workers * _METRICS_BYTES
    )
    try:
        directory = tempfile.TemporaryDirectory(
            prefix="external-oms-", dir=_SHARED_MEMORY if is_memory_used else None, ignore_cleanup_errors=True
        )
    except OSError:
        reason = "METRICS_TOKEN with several workers needs a writable directory: mount a tmpfs, for example at /dev/shm"
        sys.exit(startup_error(reason, settings.log_format))
    with directory as name:
        os.environ[METRICS_DIRECTORY] = name
        yield


def _allow_many_connections() -> None:
    """Raise the limit of open files to the maximum: each event stream holds a connection."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS reports "unlimited" but does not accept it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


if __name__ == "__main__":
    main()
