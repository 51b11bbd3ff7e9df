"""Opens the client of the service, as the environment says, and turns its errors into CommandError."""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

from app.cli.exit_status import CommandError, Kind
from app.version import VERSION
from external_oms_config import (
    AsyncClient,
    ConfigurationError,
    Conflict,
    InvalidURL,
    OmsConfigError,
    Rejected,
    TokenUnavailable,
)

_VARIABLES: Final = {
    "OMS_CONFIG_URL": "set it to the service's address, such as http://127.0.0.1:8000",
    "OMS_CONFIG_TOKEN": "set it to an access token",
}
# The first that fits.
_KINDS: Final[dict[type[OmsConfigError], tuple[Kind, str]]] = {
    InvalidURL: ("usage", "OMS_CONFIG_URL: "),
    ConfigurationError: ("usage", ""),
    TokenUnavailable: ("usage", "OMS_CONFIG_TOKEN: "),
    Rejected: ("refused", ""),
    Conflict: ("conflict", ""),
    OmsConfigError: ("failed", ""),
}


@contextlib.asynccontextmanager
async def open_client() -> AsyncIterator[AsyncClient]:
    """Open a client with OMS_CONFIG_URL and OMS_CONFIG_TOKEN from the environment. It closes with the context.

    Raise CommandError if a variable is missing, and for each error of the client.
    """
    given = {name: os.environ.get(name, "").strip() for name in _VARIABLES}
    if missing := [f"{name} is not set: {advice}" for name, advice in _VARIABLES.items() if not given[name]]:
        raise CommandError("usage", "; ".join(missing))
    try:
        async with AsyncClient(*given.values(), user_agent=f"oms-config/{VERSION}") as client:
            yield client
    except OmsConfigError as error:
        kind, prefix = next(_KINDS[each] for each in _KINDS if isinstance(error, each))
        version = error.version if isinstance(error, Conflict) else None
        raise CommandError(kind, f"{prefix}{error}", request_id=error.request_id, version=version) from error
