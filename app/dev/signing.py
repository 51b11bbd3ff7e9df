"""Signs tokens for development with the service's own secret. In production, an identity provider issues tokens."""

import time
from pathlib import Path

import jwt

from app.auth.tokens import TENANT_PLACEHOLDER
from app.dev import SUBJECT, TENANT
from app.settings import Settings

DATA = Path(".data")  # the data of `bin/serve`, which runs in the checkout's directory
SECRET_FILE = DATA / "secret"


def sign_token(secret: str, settings: Settings, *, seconds: int, tenant: str = TENANT, subject: str = SUBJECT) -> str:
    """Return a token for `tenant`, with all scopes, that a service with `settings` accepts for `seconds`."""
    issuer = settings.jwt_issuer and settings.jwt_issuer.replace(TENANT_PLACEHOLDER, tenant)
    claims = {
        "sub": subject,
        settings.jwt_tenant_claim: tenant,
        "exp": int(time.time()) + seconds,
        "aud": settings.jwt_audience,
        "iss": issuer,
        settings.jwt_scope_claim or "scope": " ".join(
            filter(None, (settings.jwt_read_scope, settings.jwt_write_scope))
        ),
    }
    return jwt.encode({name: value for name, value in claims.items() if value}, secret, settings.algorithms[0])
