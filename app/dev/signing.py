"""Tokens for development, signed with the service's own secret. In production the identity provider makes them."""

import time
from pathlib import Path

import jwt

from app.auth.tokens import TENANT_PLACEHOLDER
from app.settings import Settings

DATA = Path(".data")  # of `bin/serve`, in the checkout
SECRET_FILE = DATA / "secret"
TENANT = "acme"
SUBJECT = "developer"


def signed(secret: str, settings: Settings, *, seconds: int, tenant: str = TENANT, subject: str = SUBJECT) -> str:
    """A token of `tenant` that is good for everything with a service of these settings, for so long."""
    return jwt.encode(_claims(settings, tenant, subject, seconds), secret, settings.algorithms[0])


def _claims(settings: Settings, tenant: str, subject: str, seconds: int) -> dict[str, object]:
    scopes = [scope for scope in (settings.jwt_read_scope, settings.jwt_write_scope) if scope]
    issuer = settings.jwt_issuer and settings.jwt_issuer.replace(TENANT_PLACEHOLDER, tenant)
    claims = {
        "sub": subject,
        settings.jwt_tenant_claim: tenant,
        "exp": int(time.time()) + seconds,
        "aud": settings.jwt_audience,
        "iss": issuer,
        "scope": " ".join(scopes),
    }
    return {name: value for name, value in claims.items() if value}
