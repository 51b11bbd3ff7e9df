"""The verb token."""

import json
import os
from collections.abc import Mapping

import click

from app.cli.exit import CommandError, note
from app.dev.signing import SECRET_FILE, sign_token
from app.model import is_tenant_name
from app.settings import Settings, SettingsError
from app.settings.cross_checks import KEY_SOURCES


def token(*, tenant: str, subject: str, hours: int, as_json: bool) -> None:
    """Prints a token that the service of these variables takes."""
    if not is_tenant_name(tenant):
        raise CommandError("usage", "--tenant takes 1 to 63 of a-z 0-9 - _, a letter or digit first and last")
    settings = _settings(os.environ)
    if settings.jwt_secret is None:
        raise CommandError("usage", "without JWT_SECRET no token can be signed here: the identity provider makes them")
    text = sign_token(settings.jwt_secret, settings, tenant=tenant, subject=subject, seconds=hours * 3600)
    if as_json:
        click.echo(json.dumps({"token": text, "tenant": tenant, "subject": subject, "seconds": hours * 3600}))
        return
    click.echo(text)
    note(f"for the tenant {tenant}, good for {hours} h", as_json=False)


def _settings(environment: Mapping[str, str]) -> Settings:
    """The web process's settings, as far as tokens go; the secret of `bin/serve` where no variable has the keys."""
    own = {name: given for name, given in environment.items() if name.startswith("JWT_")}
    if not any(own.get(source) for source in KEY_SOURCES):
        try:
            own["JWT_SECRET"] = SECRET_FILE.read_text()
        except (OSError, UnicodeError) as error:
            text = f"JWT_SECRET is not set, and {SECRET_FILE}, the secret of bin/serve, cannot be read here"
            raise CommandError("usage", text) from error
    try:
        return Settings.read({**own, "REDIS_URL": "redis://none"})  # it is required, and no token depends on it
    except SettingsError as error:
        raise CommandError("usage", str(error)) from error
