"""The application as the environment has it, for an ASGI server: `app.asgi:application`."""

import os
import warnings

# Connexion 3.3 imports Starlette's test client, which then says that it is deprecated.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from app.factory import create_app  # noqa: E402 - the filter has to stand before this
from app.settings import Settings  # noqa: E402

application = create_app(Settings.read(os.environ))
