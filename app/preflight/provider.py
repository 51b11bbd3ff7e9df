"""Checks that the keys which verify tokens can be fetched."""

from app.auth.jwks import MAX_FAILURE, FetchError, JwksFetcher, fetch_keys
from app.auth.keys import without_query
from app.auth.tokens import TENANT_PLACEHOLDER
from app.preflight.findings import Finding
from app.settings import Settings


async def key_findings(settings: Settings) -> list[Finding]:
    """Return the findings for the key set that verifies tokens. It is fetched in the same way as by the service.

    There are none if the settings contain the key, or name one issuer for each tenant. An outage of the provider must
    not stop a release, so each is a warning.
    """
    location = settings.jwt_jwks_url or settings.jwt_issuer
    has_key = settings.jwt_secret is not None or settings.jwt_public_key is not None
    if has_key or location is None or TENANT_PLACEHOLDER in location:
        return []
    fetcher = JwksFetcher(discover=settings.jwt_jwks_url is None)
    try:
        keys, ignored = await fetch_keys(fetcher, location, settings.algorithms)
    except FetchError as error:
        message = f"no token can be verified now: the keys of {without_query(location)} cannot be fetched: {error}"
        return [Finding("warning", "keys_not_fetched", message, seen=False)]
    finally:
        await fetcher.close()
    if keys:
        return []
    reasons = "; ".join(ignored)[:MAX_FAILURE] or "the key set is empty"
    message = f"no token can be verified: no key of {without_query(location)} is usable: {reasons}"
    return [Finding("warning", "no_usable_keys", message)]
