"""The application as the environment has it, for an ASGI server: `app.asgi:application`."""

import logging
import os
import sys
import warnings

# Connexion 3.3 imports Starlette's test client, which then says that it is deprecated.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from app.factory import create_app  # noqa: E402 - it imports Connexion: the filter has to stand before it
from app.logs import install_log_hooks  # noqa: E402 - sorted behind the factory
from app.server import STARTUP_FAILURE  # noqa: E402 - sorted behind the factory
from app.settings import Settings  # noqa: E402 - sorted behind the factory

install_log_hooks()
try:
    application = create_app(Settings.read(os.environ))
except Exception:
    # A worker's own traceback would go past the log; with this status its parent does not start it again and again.
    logging.getLogger(__name__).critical("the application cannot be built", exc_info=True)
    sys.exit(STARTUP_FAILURE)
