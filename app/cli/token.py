"""The verb `token`."""

import os
from pathlib import Path
from typing import Final

from app.cli.exit_status import CommandError
from app.cli.output import note, print_result, wants_json
from app.dev import signing
from app.model import is_tenant_name
from app.settings import Settings, SettingsError
from app.settings.cross_checks import KEY_SOURCES

# In the checkout of this command, also from another directory.
_SECRET_FILE: Final = Path(__file__).parents[2] / signing.SECRET_FILE


def token(*, tenant: str, subject: str, hours: int) -> None:
    """Print a token that a service with the same JWT_ variables accepts."""
    if not is_tenant_name(tenant):
        raise CommandError("usage", "--tenant must be 1 to 63 of a-z 0-9 - _ and start and end with a letter or digit")
    settings = _settings()
    if settings.jwt_secret is None:
        raise CommandError("usage", "cannot sign a token without JWT_SECRET: get a token from the identity provider")
    seconds = hours * 3600
    signed = signing.sign_token(settings.jwt_secret, settings, tenant=tenant, subject=subject, seconds=seconds)
    print_result({"token": signed, "tenant": tenant, "subject": subject, "seconds": seconds}, signed)
    if not wants_json():
        note(f"for the tenant {tenant}, valid for {hours} h")


def _settings() -> Settings:
    """Read the JWT_ variables. If none of them is a source of keys, use the secret that `bin/serve` created."""
    variables = {name: given for name, given in os.environ.items() if name.startswith("JWT_")}
    try:
        if not any(variables.get(source) for source in KEY_SOURCES):
            variables["JWT_SECRET"] = _SECRET_FILE.read_text()
        return Settings.read({**variables, "REDIS_URL": "redis://none"})  # required, but unused here
    except OSError as error:
        text = f"JWT_SECRET is not set, and {_SECRET_FILE}, the secret of bin/serve, cannot be read: {error.strerror}"
        raise CommandError("usage", text) from error
    except SettingsError as error:
        raise CommandError("usage", str(error)) from error
