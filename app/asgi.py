"""ASGI entry point: builds the application from the environment, as `app.asgi:application`."""

import logging
import os
import sys
import warnings

from app.logs import install_log_hooks
from app.server import STARTUP_FAILURE
from app.settings import Settings

with warnings.catch_warnings():
    # Connexion 3.3 imports Starlette's test client, which warns that it is deprecated.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    from app.factory import create_app

install_log_hooks()
try:
    application = create_app(Settings.read(os.environ))
except Exception:
    # uvicorn would print a traceback outside the log, and its parent process would restart the worker for ever.
    logging.getLogger(__name__).critical("the application cannot be built", exc_info=True)
    sys.exit(STARTUP_FAILURE)
