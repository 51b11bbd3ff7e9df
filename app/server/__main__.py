"""The command of the web process, `python -m app.server`: checks the settings once, then runs uvicorn."""

import contextlib
import logging
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping

import uvicorn

from app.logs import install_log_hooks, logging_config, startup_error
from app.server.graceful_shutdown import serve
from app.server.http_protocol import HttpProtocol
from app.server.listen_socket import listen
from app.settings import METRICS_DIRECTORY, Settings, SettingsError


def main(environment: Mapping[str, str] = os.environ) -> None:
    """Serves until a signal ends it. Ends the process with one line on stderr where it cannot start."""
    try:
        settings = Settings.read(environment)
        listener = listen(settings.port)
    except SettingsError as error:
        sys.exit(startup_error(str(error), environment.get("LOG_FORMAT")))
    except OSError as error:
        reason = f"cannot listen on port {settings.port} (PORT): {os.strerror(error.errno or 0)}"
        sys.exit(startup_error(reason, settings.log_format))
    config = uvicorn.Config(
        "app.asgi:application",
        http=HttpProtocol,
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
        # Whoever closes an idle connection first may cut off a request: let it be Heroku's router, after its 90 s.
        timeout_keep_alive=95,
    )
    _allow_many_connections()
    install_log_hooks()
    logging.getLogger(__name__).info("listening", extra=settings.described())
    with _metrics_directory(1 if settings.metrics_token is None else settings.workers):
        serve(config, listener)


@contextlib.contextmanager
def _metrics_directory(workers: int) -> Iterator[None]:
    """Where the `workers` that are started meanwhile keep their numbers together. One alone needs none."""
    os.environ.pop(METRICS_DIRECTORY, None)
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="external-oms-", ignore_cleanup_errors=True) as directory:
        os.environ[METRICS_DIRECTORY] = directory
        yield


def _allow_many_connections() -> None:
    """As many as the system allows: each listener to the events holds one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS calls it unlimited, and refuses that
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
