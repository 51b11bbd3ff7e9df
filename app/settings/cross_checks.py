"""Finds contradictions between variables: those for sentinels, key sources, secrets and algorithms."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.auth.keys import PUBLIC_KEY_ALGORITHMS, SECRET_ALGORITHMS, algorithms_for, is_trusted_address
from app.auth.tokens import TENANT_PLACEHOLDER
from app.settings.parsers import UNTRUSTED_HTTP
from app.store.redis_url import Address

OWN_KEY_SOURCES = ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL")
KEY_SOURCES = (*OWN_KEY_SOURCES, "JWT_ISSUER")
_SECRETS = ("JWT_SECRET", "JWT_SECRET_PREVIOUS")
# Without a value, these would check nothing.
_CHECKS = ("JWT_ISSUER", "JWT_AUDIENCE", "JWT_READ_SCOPE", "JWT_WRITE_SCOPE", "TENANT_HOST")
_SENTINEL_LOGIN = ("REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD")


def cross_check(environment: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each contradiction between the variables.

    `values` has the parsed values of the variables that are valid on their own.
    """
    given = [variable for variable in OWN_KEY_SOURCES if environment.get(variable)]
    issuer = environment.get("JWT_ISSUER", "")
    for variable in _CHECKS:
        if environment.get(variable) == "":
            yield f"{variable} is empty: set it, or remove it so that it is not checked"
    yield from _sentinel_faults(environment, values.get("redis"))
    yield from _secret_faults(environment, values.get("jwt_algorithms", ()))
    if len(given) > 1:
        yield f"{' and '.join(given)} are set: set only one of them"
    elif not given and not issuer:
        yield f"no key to verify tokens: set one of {', '.join(OWN_KEY_SOURCES)} and JWT_ISSUER"
    elif not given and not is_trusted_address(issuer.replace(TENANT_PLACEHOLDER, "tenant")):
        reason = f"; {UNTRUSTED_HTTP}" if issuer.startswith("http://") else ""
        yield f"JWT_ISSUER must be an https:// address if no other variable provides the keys{reason}"
    else:
        (source,) = given or ["JWT_ISSUER"]
        fitting = _fitting_algorithms(values.get("jwt_public_key"), secret=source == "JWT_SECRET")
        if unfit := [name for name in values.get("jwt_algorithms", ()) if name not in fitting]:
            yield f"JWT_ALGORITHMS has {', '.join(unfit)}, which does not fit {source}"


def _sentinel_faults(environment: Mapping[str, str], address: Address | None) -> Iterator[str]:
    given = [variable for variable in ("REDIS_SENTINEL_QUORUM", *_SENTINEL_LOGIN) if environment.get(variable)]
    if given and address is not None and address.kind != "sentinels":
        yield f"{' and '.join(given)} can be set only if REDIS_URL is a redis+sentinel:// address"
    username, password = _SENTINEL_LOGIN
    if username in given and password not in given:
        yield f"{username} is set without {password}: set both, or only the password"


def _secret_faults(environment: Mapping[str, str], algorithms: Sequence[str]) -> Iterator[str]:
    secret, previous = (environment.get(variable, "") for variable in _SECRETS)
    if previous and not secret:
        yield "JWT_SECRET_PREVIOUS is set without JWT_SECRET: set JWT_SECRET too, or remove JWT_SECRET_PREVIOUS"
    longest = max((int(name[2:]) // 8 for name in algorithms if name in SECRET_ALGORITHMS), default=0)
    for variable, value in zip(_SECRETS, (secret, previous), strict=True):
        if value and len(value.encode(errors="replace")) < longest:
            yield f"{variable} must be {longest} bytes or more for the algorithms in JWT_ALGORITHMS"


def _fitting_algorithms(public_key: object, *, secret: bool) -> tuple[str, ...]:
    if secret:
        return SECRET_ALGORITHMS
    return PUBLIC_KEY_ALGORITHMS if public_key is None else algorithms_for(public_key)


def default_algorithms(public_key: object, *, secret: bool) -> tuple[str, ...]:
    """Return the default of JWT_ALGORITHMS: HS256 for a secret, what fits `public_key`, or RS256 if it is None."""
    return _fitting_algorithms(public_key, secret=secret)[:1]
