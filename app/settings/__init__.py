"""What the service was told: the environment, read once, into one frozen object.

parsers       how the text of a variable is read
cross_checks  what is wrong with variables that are good each for itself
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self
from urllib.parse import urlsplit

from app.auth.keys import PUBLIC_KEY_ALGORITHMS, SECRET_ALGORITHMS
from app.settings.cross_checks import OWN_KEY_SOURCES, cross_check, usual_algorithms
from app.settings.parsers import (
    MAX_NOTE_CHARACTERS,
    MIN_SECRET_BYTES,
    MIN_TOKEN_CHARACTERS,
    algorithms,
    boolean,
    claim,
    issuer,
    note,
    one_of,
    origins,
    pem,
    scope,
    seconds,
    secret,
    tenant_host,
    token,
    trusted_url,
    web_url,
    whole,
)
from app.store.address import Address

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name for it


class SettingsError(Exception):
    """The environment cannot be run with. The text names every variable at fault and what it takes, and no value."""


def _setting(
    variable: str, takes: str, read: Callable[[str], Any], default: Any = MISSING, *, shown: bool = True
) -> Any:
    """A field that stands in `variable`, which `read` understands or refuses with a ValueError."""
    return field(default=default, repr=shown, metadata={"variable": variable, "takes": takes, "read": read})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field is one variable of the environment; an empty variable counts as not set."""

    port: int = _setting("PORT", "a port, 1 to 65535", whole(1, 65535), 8000)
    workers: int = _setting("WEB_CONCURRENCY", "a number of processes, 1 to 64", whole(1, 64), 1)
    redis: Address = _setting(  # noqa: RUF009 - an Address is frozen
        "REDIS_URL",
        "redis://host:port/db, rediss://host:port/db, unix:///path, redis+sentinel://host:port,host:port/service/db or "
        "redis+cluster://host:port,host:port",
        Address.parse,
    )
    redis_tls_verify: bool = _setting("REDIS_TLS_VERIFY", "true or false", boolean, True)
    redis_timeout: float = _setting("REDIS_TIMEOUT", "seconds, 0.01 to 60", seconds(0.01, 60), 1.0)
    redis_min_replicas: int = _setting("REDIS_MIN_REPLICAS", "a number of replicas, 0 to 10", whole(0, 10), 0)
    jwt_secret: str | None = _setting(
        "JWT_SECRET", f"a secret of {MIN_SECRET_BYTES} bytes or more", secret, None, shown=False
    )
    jwt_secret_previous: str | None = _setting(
        "JWT_SECRET_PREVIOUS",
        f"the secret that JWT_SECRET replaces, {MIN_SECRET_BYTES} bytes or more",
        secret,
        None,
        shown=False,
    )
    jwt_public_key: str | None = _setting(
        "JWT_PUBLIC_KEY", "an RSA, EC (P-256, P-384, P-521) or Ed25519 public key in PEM", pem, None
    )
    jwt_jwks_url: str | None = _setting("JWT_JWKS_URL", "an https:// address of a JWK Set", trusted_url, None)
    jwt_issuer: str | None = _setting(
        "JWT_ISSUER", "what a token's 'iss' must be, with {tenant} once at most", issuer, None
    )
    jwt_algorithms: tuple[str, ...] | None = _setting(
        "JWT_ALGORITHMS", f"some of {', '.join((*SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS))}", algorithms, None
    )
    jwt_audience: str | None = _setting("JWT_AUDIENCE", "what a token's 'aud' must hold", str, None)
    jwt_tenant_claim: str = _setting("JWT_TENANT_CLAIM", "the name of a claim for the tenant", claim, "tenant")
    jwt_leeway: float = _setting("JWT_LEEWAY", "seconds, 0 to 600", seconds(0, 600), 0.0)
    jwt_jwks_ttl: float = _setting("JWT_JWKS_TTL", "seconds, 10 to 86400", seconds(10, 86400), 300.0)
    jwt_read_scope: str | None = _setting("JWT_READ_SCOPE", "one word", scope, None)
    jwt_write_scope: str | None = _setting("JWT_WRITE_SCOPE", "one word", scope, None)
    tenant_host: str | None = _setting("TENANT_HOST", "a host with {tenant} in it once", tenant_host, None)
    max_body_bytes: int = _setting("MAX_BODY_BYTES", "bytes, 64 to 1048576", whole(64, 1 << 20), 16384)
    history_length: int = _setting("HISTORY_LENGTH", "changes, 1 to 100000", whole(1, 100_000), 1000)
    cors_allow_origins: tuple[str, ...] = _setting(
        "CORS_ALLOW_ORIGINS", "* or some of scheme://host or scheme://host:port, http or https", origins, ()
    )
    docs_url: str = _setting("DOCS_URL", "an http:// or https:// address", web_url, "https://docs.newstore.net")
    ui_note: str | None = _setting(
        "UI_NOTE", f"up to {MAX_NOTE_CHARACTERS} printable characters", note, None, shown=False
    )
    metrics_token: str | None = _setting(
        "METRICS_TOKEN",
        f"a token of {MIN_TOKEN_CHARACTERS} characters or more, printable ASCII without spaces",
        token,
        None,
        shown=False,
    )
    metrics_directory: str | None = _setting(
        METRICS_DIRECTORY, "a directory, which app/server.py gives its workers", str, None, shown=False
    )
    log_format: str = _setting("LOG_FORMAT", "logfmt, json or console", one_of("logfmt", "json", "console"), "logfmt")
    log_level: str = _setting(
        "LOG_LEVEL",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "INFO",
    )

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that a token may be signed with."""
        return self.jwt_algorithms or usual_algorithms(self.jwt_public_key, secret=self.jwt_secret is not None)

    def described(self) -> dict[str, object]:
        """What is configured, for the log: no secret, the store without its user, and of keys where they come from."""
        (source,) = [each for each in OWN_KEY_SOURCES if getattr(self, each.lower()) is not None] or ["JWT_ISSUER"]
        shown = {each.metadata["variable"].lower(): getattr(self, each.name) for each in fields(self) if each.repr}
        own = {
            "redis_url": self.redis.shown,
            "redis_tls_verify": self.redis_tls_verify if self.redis.tls else None,
            "jwt_keys": source,
            "jwt_public_key": None,
            "jwt_algorithms": ",".join(self.algorithms),
            "cors_allow_origins": ",".join(self.cors_allow_origins),
            "docs_url": _without_user(self.docs_url),
            "metrics": self.metrics_token is not None,
        }
        return {name: value for name, value in {**shown, **own}.items() if value not in (None, "")}

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """The settings in `environment`. Raises BadSettings, once for everything that is wrong with it."""
        values: dict[str, Any] = {}
        faults: list[str] = []
        for each in fields(cls):
            variable, takes = each.metadata["variable"], each.metadata["takes"]
            given = environment.get(variable, "")
            if given:
                try:
                    values[each.name] = each.metadata["read"](given)
                except ValueError:
                    faults.append(f"{variable} takes {takes}")
            elif each.default is MISSING:
                faults.append(f"{variable} is missing; it takes {takes}")
        faults += cross_check(environment, values)
        if faults:
            raise SettingsError("bad settings: " + "; ".join(faults))
        return cls(**values)


def _without_user(address: str) -> str:
    url = urlsplit(address)
    without = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return f"{url.scheme}:" if "@" in without else without  # a password may hold what ends a host
