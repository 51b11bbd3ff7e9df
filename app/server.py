"""The command of the web process, `python -m app.server`: checks the settings once, then runs uvicorn."""

import contextlib
import logging
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.logs import capture, last_words, logging_config
from app.settings import BadSettings, Settings
from app.web.protocol import BoundedProtocol

_METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name for it


def main(environment: Mapping[str, str] = os.environ) -> None:
    """Serves until a signal ends it. Ends the process with one line on stderr where it cannot start."""
    try:
        settings = Settings.read(environment)
        listener = _listen(settings.port)
    except BadSettings as error:
        sys.exit(last_words(str(error), environment.get("LOG_FORMAT")))
    except OSError as error:
        reason = f"cannot listen on port {settings.port} (PORT): {os.strerror(error.errno or 0)}"
        sys.exit(last_words(reason, settings.log_format))
    config = uvicorn.Config(
        "app.asgi:application",
        http=BoundedProtocol,
        ws="none",
        loop="uvloop",
        # Were it "auto", an application that cannot be built would answer 500 to everybody instead of ending.
        lifespan="on",
        workers=settings.workers,
        log_config=logging_config(settings.log_format, settings.log_level),
        log_level=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    # As many connections as the system allows: each listener to the events holds one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    capture()
    logging.getLogger(__name__).info("listening", extra=settings.described())
    if settings.workers == 1:
        os.environ.pop(_METRICS_DIRECTORY, None)  # one process needs none
        uvicorn.Server(config).run(sockets=[listener])
    else:
        with _metrics_directory():
            Multiprocess(config, [listener]).run()


@contextlib.contextmanager
def _metrics_directory() -> Iterator[None]:
    """Where the workers that are started meanwhile keep their numbers together, whichever of them is asked."""
    with tempfile.TemporaryDirectory(prefix="external-oms-", ignore_cleanup_errors=True) as directory:
        os.environ[_METRICS_DIRECTORY] = directory
        yield


def _listen(port: int) -> socket.socket:
    """A socket that listens on `port`, on every address of the machine."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))  # noqa: S104 - a platform's router reaches a process by any of its addresses
    listener.listen()  # now, or uvloop would hide that another process listens on this port
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    main()
