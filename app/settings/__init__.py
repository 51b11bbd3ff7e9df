"""Settings: the environment, read once into one frozen object.

parsers       parse the text of one variable
cross_checks  find contradictions between variables
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Final, Self

from app.auth.keys import PUBLIC_KEY_ALGORITHMS, SECRET_ALGORITHMS, public_key, without_query
from app.errors import Mistake
from app.settings import parsers as parse
from app.settings.cross_checks import OWN_KEY_SOURCES, cross_check, default_algorithms
from app.store.redis_url import Address, Quorum

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client reads the variable of this name


class SettingsError(Exception):
    """Settings are bad, missing or contradictory. The message names each variable and what it must be, but no value."""


_ALGORITHMS: Final = ", ".join((*SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS))
_REDIS_URLS: Final = (
    "redis://host:port/db, rediss://host:port/db, unix:///path, redis+sentinel://host:port,host:port/service/db or "
    "redis+cluster://host:port,host:port"
)
_PUBLIC_KEY: Final = "a public key or certificate in PEM: RSA of 2048 to 8192 bits, EC (P-256, P-384, P-521) or Ed25519"
_SECRET: Final = f"{parse.MIN_SECRET_BYTES} bytes or more"


def _setting(
    variable: str, expected: str, parser: Callable[[str], Any], default: Any = MISSING, *, shown: bool = True
) -> Any:
    """Return a field whose value `parser` makes from the text of `variable`.

    `parser` raises ValueError for a bad text. The error then says that the variable must be `expected`. A field that is
    not `shown` is in no log and no representation.
    """
    return field(default=default, repr=shown, metadata={"variable": variable, "expected": expected, "parser": parser})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process. Each field is one environment variable. An empty variable counts as not set."""

    port: int = _setting("PORT", "a port, 1 to 65535", parse.whole(1, 65535), 8000)
    workers: int = _setting("WEB_CONCURRENCY", "a number of processes, 1 to 64", parse.whole(1, 64), 1)
    redis: Address = _setting("REDIS_URL", _REDIS_URLS, Address.parse)  # noqa: RUF009 - an Address is frozen
    redis_tls_verify: bool = _setting("REDIS_TLS_VERIFY", "true or false", parse.boolean, True)
    redis_timeout: float = _setting("REDIS_TIMEOUT", "a number of seconds, 0.01 to 60", parse.seconds(0.01, 60), 1.0)
    redis_min_replicas: int = _setting("REDIS_MIN_REPLICAS", "a number of replicas, 0 to 10", parse.whole(0, 10), 0)
    redis_sentinel_quorum: Quorum = _setting(  # noqa: RUF009 - a Quorum is a string
        "REDIS_SENTINEL_QUORUM", "majority or any", parse.one_of("majority", "any"), "majority"
    )
    redis_sentinel_username: str | None = _setting(
        "REDIS_SENTINEL_USERNAME", "the user of the sentinels, in UTF-8", parse.utf8, None, shown=False
    )
    redis_sentinel_password: str | None = _setting(
        "REDIS_SENTINEL_PASSWORD", "the password of the sentinels, in UTF-8", parse.utf8, None, shown=False
    )
    jwt_secret: str | None = _setting("JWT_SECRET", f"a secret of {_SECRET}", parse.secret, None, shown=False)
    jwt_secret_previous: str | None = _setting(
        "JWT_SECRET_PREVIOUS", f"the secret before JWT_SECRET, {_SECRET}", parse.secret, None, shown=False
    )
    jwt_public_key: object = _setting("JWT_PUBLIC_KEY", _PUBLIC_KEY, public_key, None)
    jwt_jwks_url: str | None = _setting("JWT_JWKS_URL", "the https:// address of a JWK Set", parse.trusted_url, None)
    jwt_issuer: str | None = _setting(
        "JWT_ISSUER", "the 'iss' of valid tokens, with {tenant} at most once", parse.issuer, None
    )
    jwt_algorithms: tuple[str, ...] | None = _setting(
        "JWT_ALGORITHMS", f"a comma-separated list of {_ALGORITHMS}", parse.algorithms, None
    )
    jwt_audience: str | None = _setting("JWT_AUDIENCE", "the 'aud' of valid tokens", str, None)
    jwt_tenant_claim: str = _setting("JWT_TENANT_CLAIM", "the name of the tenant's claim", parse.claim, "tenant")
    jwt_leeway: float = _setting("JWT_LEEWAY", "a number of seconds, 0 to 600", parse.seconds(0, 600), 0.0)
    jwt_jwks_ttl: float = _setting("JWT_JWKS_TTL", "a number of seconds, 10 to 86400", parse.seconds(10, 86400), 300.0)
    jwt_scope_claim: str | None = _setting("JWT_SCOPE_CLAIM", "the name of the scopes' claim", parse.claim, None)
    jwt_read_scope: str | None = _setting("JWT_READ_SCOPE", "one scope", parse.scope, None)
    jwt_write_scope: str | None = _setting("JWT_WRITE_SCOPE", "one scope", parse.scope, None)
    tenant_host: str | None = _setting("TENANT_HOST", "a host with {tenant} once", parse.tenant_host, None)
    max_body_bytes: int = _setting("MAX_BODY_BYTES", "a size in bytes, 64 to 1048576", parse.whole(64, 1 << 20), 16384)
    # Longer than Heroku's router, which closes after 90 s.
    keep_alive: int = _setting("KEEP_ALIVE", "a number of seconds, 1 to 3600", parse.whole(1, 3600), 95)
    history_length: int = _setting("HISTORY_LENGTH", "a number of changes, 1 to 100000", parse.whole(1, 100_000), 1000)
    cors_allow_origins: tuple[str, ...] = _setting(
        "CORS_ALLOW_ORIGINS", "* or a comma-separated list of http(s)://host or http(s)://host:port", parse.origins, ()
    )
    docs_url: str = _setting(
        "DOCS_URL", "an http(s):// address without user, query or fragment", parse.web_url, "https://docs.newstore.net"
    )
    ui_note: str | None = _setting("UI_NOTE", "up to 500 printable characters", parse.note, None, shown=False)
    metrics_token: str | None = _setting(
        "METRICS_TOKEN",
        "a token of 16 or more printable ASCII characters without spaces and braces",
        parse.metrics_token,
        None,
        shown=False,
    )
    metrics_directory: str | None = _setting(
        METRICS_DIRECTORY, "a directory that app.server creates for its workers", str, None, shown=False
    )
    log_format: str = _setting(
        "LOG_FORMAT", "logfmt, json, cloud or console", parse.one_of("logfmt", "json", "cloud", "console"), "logfmt"
    )
    log_level: str = _setting("LOG_LEVEL", "DEBUG, INFO, WARNING, ERROR or CRITICAL", parse.log_level, "INFO")

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Return the accepted signature algorithms of tokens: JWT_ALGORITHMS, or the default for the key source."""
        return self.jwt_algorithms or default_algorithms(self.jwt_public_key, secret=self.jwt_secret is not None)

    @property
    def redis_address(self) -> Address:
        """Return `redis`, with the login of the sentinels and with REDIS_TLS_VERIFY."""
        return replace(
            self.redis,
            tls_verify=self.redis_tls_verify,
            sentinel_username=self.redis_sentinel_username,
            sentinel_password=self.redis_sentinel_password,
        )

    def described(self) -> dict[str, object]:
        """Return the settings for the log, without secrets. `jwt_keys` names the source of the keys."""
        (source,) = [each for each in OWN_KEY_SOURCES if getattr(self, each.lower()) is not None] or ["JWT_ISSUER"]
        shown = {each.metadata["variable"].lower(): getattr(self, each.name) for each in fields(self) if each.repr}
        own = {
            "redis_url": self.redis.shown,
            "redis_tls_verify": self.redis_tls_verify if self.redis.tls else None,
            "redis_sentinel_quorum": self.redis_sentinel_quorum if self.redis.kind == "sentinels" else None,
            "jwt_jwks_url": self.jwt_jwks_url and without_query(self.jwt_jwks_url),
            "jwt_keys": source,
            "jwt_public_key": None,
            "jwt_algorithms": ",".join(self.algorithms),
            "cors_allow_origins": ",".join(self.cors_allow_origins),
            "metrics": self.metrics_token is not None,
        }
        return {name: value for name, value in {**shown, **own}.items() if value not in (None, "")}

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings in `environment`. Raise one SettingsError that names everything that is wrong."""
        values: dict[str, Any] = {}
        faults: list[str] = []
        for each in fields(cls):
            variable, expected = each.metadata["variable"], each.metadata["expected"]
            given = environment.get(variable, "")
            if given:
                try:
                    if variable != "JWT_PUBLIC_KEY":  # whose parser accepts them
                        parse.require_plain(given)
                    values[each.name] = each.metadata["parser"](given)
                except ValueError as error:
                    # The text of any other error may quote the value.
                    reason = f"; {error}" if isinstance(error, Mistake) else ""
                    faults.append(f"{variable} must be {expected}{reason}")
            elif each.default is MISSING:
                faults.append(f"{variable} is missing; it must be {expected}")
        faults += cross_check(environment, values)
        if faults:
            faults += [f"{name} is unknown; similar: {known}" for name, known in unknown_variables(environment).items()]
            raise SettingsError("bad settings: " + "; ".join(faults))
        return cls(**values)


_SIMILAR: Final = 0.85


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that look misspelt, each with the similar one that is not set, or None.

    They are all unknown JWT_ variables, and names that are similar to those of settings.
    """
    known = {each.metadata["variable"] for each in fields(Settings)}
    unset = sorted(known - environment.keys())
    found: dict[str, str | None] = {}
    for name in sorted(environment.keys() - known):
        similar = difflib.get_close_matches(name.upper(), unset, 1, _SIMILAR)
        if similar or name.upper().startswith("JWT_"):
            found[name] = similar[0] if similar else None
    return found
