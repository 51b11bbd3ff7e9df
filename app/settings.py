"""What the service was told: the environment, read once, into one frozen object."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self
from urllib.parse import urlsplit

from app.auth.issuers import is_trusted_address
from app.auth.keys import PUBLIC_KEY_ALGORITHMS, SECRET_ALGORITHMS, algorithms_for, public_key
from app.auth.tokens import TENANT_PLACE
from app.store.address import Address


class BadSettings(Exception):
    """The environment cannot be run with. The text names every variable at fault and what it takes, and no value."""


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and lowest <= int(value[:19]) <= highest):
            raise ValueError
        return int(value)

    return read


def _seconds(lowest: float, highest: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        seconds = float(value)
        if not (math.isfinite(seconds) and lowest <= seconds <= highest):
            raise ValueError
        return seconds

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError
        return value

    return read


def _boolean(value: str) -> bool:
    return _one_of("true", "false")(value) == "true"


METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name for it
MIN_TOKEN_CHARACTERS = 16
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: as long as the hash of HS256, or longer


def _secret(value: str) -> str:
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise ValueError
    return value


def _token(value: str) -> str:
    if len(value) < MIN_TOKEN_CHARACTERS or not _is_plain(value):
        raise ValueError
    return value


def _without_user(address: str) -> str:
    url = urlsplit(address)
    without = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return f"{url.scheme}:" if "@" in without else without  # a password may hold what ends a host


def _web_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname or url.port == 0 or url.query or url.fragment:
        raise ValueError
    if not value.isprintable() or " " in value:
        raise ValueError
    return value.rstrip("/")


def _pem(value: str) -> str:
    public_key(value)
    return value


def _trusted_url(value: str) -> str:
    if not is_trusted_address(value) or not _is_plain(value):
        raise ValueError
    return value


def _issuer(value: str) -> str:
    if value.count(TENANT_PLACE) > 1 or not _is_plain(value.replace(TENANT_PLACE, "")):
        raise ValueError
    return value


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and not set(value) & set(" {}")


def _algorithms(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if not set(names) <= {*SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS}:
        raise ValueError
    return names


def _claim(value: str) -> str:
    if not value.isprintable() or " " in value or value in {"exp", "nbf", "iat", "iss", "aud", "jti"}:
        raise ValueError
    return value


def _scope(value: str) -> str:
    # RFC 6749, section 3.3: a word has no space, no quotation mark and no backslash.
    if not (value.isascii() and value.isprintable()) or set(value) & set(' "\\'):
        raise ValueError
    return value


def _tenant_host(value: str) -> str:
    value = value.lower()
    if not re.fullmatch(r"[a-z0-9.-]*\{tenant\}[a-z0-9.-]*", value):
        raise ValueError
    return value


def _origins(value: str) -> tuple[str, ...]:
    if value == "*":
        return (value,)
    return tuple(_origin(each.strip().lower()) for each in value.split(","))


def _origin(value: str) -> str:
    """As a browser writes it, which leaves the usual port out."""
    if not re.fullmatch(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", value):
        raise ValueError
    url = urlsplit(value)  # `port` raises ValueError where it is none
    usual = {"http": 80, "https": 443}[url.scheme]
    if url.port == 0:
        raise ValueError
    return value.removesuffix(f":{usual}") if url.port == usual else value


def _setting(
    variable: str, takes: str, read: Callable[[str], Any], default: Any = MISSING, *, shown: bool = True
) -> Any:
    """A field that stands in `variable`, which `read` understands or refuses with a ValueError."""
    return field(default=default, repr=shown, metadata={"variable": variable, "takes": takes, "read": read})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field is one variable of the environment; an empty variable counts as not set."""

    port: int = _setting("PORT", "a port, 1 to 65535", _whole(1, 65535), 8000)
    workers: int = _setting("WEB_CONCURRENCY", "a number of processes, 1 to 64", _whole(1, 64), 1)
    redis: Address = _setting(  # noqa: RUF009 - an Address is frozen
        "REDIS_URL",
        "redis://host:port/db, rediss://host:port/db, unix:///path, redis+sentinel://host:port,host:port/service/db or "
        "redis+cluster://host:port,host:port",
        Address.parse,
    )
    redis_tls_verify: bool = _setting("REDIS_TLS_VERIFY", "true or false", _boolean, True)
    redis_timeout: float = _setting("REDIS_TIMEOUT", "seconds, 0.01 to 60", _seconds(0.01, 60), 1.0)
    redis_min_replicas: int = _setting("REDIS_MIN_REPLICAS", "a number of replicas, 0 to 10", _whole(0, 10), 0)
    jwt_secret: str | None = _setting(
        "JWT_SECRET", f"a secret of {MIN_SECRET_BYTES} bytes or more", _secret, None, shown=False
    )
    jwt_secret_previous: str | None = _setting(
        "JWT_SECRET_PREVIOUS",
        f"the secret that JWT_SECRET replaces, {MIN_SECRET_BYTES} bytes or more",
        _secret,
        None,
        shown=False,
    )
    jwt_public_key: str | None = _setting(
        "JWT_PUBLIC_KEY", "an RSA, EC (P-256, P-384, P-521) or Ed25519 public key in PEM", _pem, None
    )
    jwt_jwks_url: str | None = _setting("JWT_JWKS_URL", "an https:// address of a JWK Set", _trusted_url, None)
    jwt_issuer: str | None = _setting(
        "JWT_ISSUER", "what a token's 'iss' must be, with {tenant} once at most", _issuer, None
    )
    jwt_algorithms: tuple[str, ...] | None = _setting(
        "JWT_ALGORITHMS", f"some of {', '.join((*SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS))}", _algorithms, None
    )
    jwt_audience: str | None = _setting("JWT_AUDIENCE", "what a token's 'aud' must hold", str, None)
    jwt_tenant_claim: str = _setting("JWT_TENANT_CLAIM", "the name of a claim for the tenant", _claim, "tenant")
    jwt_leeway: float = _setting("JWT_LEEWAY", "seconds, 0 to 600", _seconds(0, 600), 0.0)
    jwt_jwks_ttl: float = _setting("JWT_JWKS_TTL", "seconds, 10 to 86400", _seconds(10, 86400), 300.0)
    jwt_read_scope: str | None = _setting("JWT_READ_SCOPE", "one word", _scope, None)
    jwt_write_scope: str | None = _setting("JWT_WRITE_SCOPE", "one word", _scope, None)
    tenant_host: str | None = _setting("TENANT_HOST", "a host with {tenant} in it once", _tenant_host, None)
    max_body_bytes: int = _setting("MAX_BODY_BYTES", "bytes, 64 to 1048576", _whole(64, 1 << 20), 16384)
    history_length: int = _setting("HISTORY_LENGTH", "changes, 1 to 100000", _whole(1, 100_000), 1000)
    cors_allow_origins: tuple[str, ...] = _setting(
        "CORS_ALLOW_ORIGINS", "* or some of scheme://host or scheme://host:port, http or https", _origins, ()
    )
    docs_url: str = _setting("DOCS_URL", "an http:// or https:// address", _web_url, "https://docs.newstore.net")
    metrics_token: str | None = _setting(
        "METRICS_TOKEN",
        f"a token of {MIN_TOKEN_CHARACTERS} characters or more, printable ASCII without spaces",
        _token,
        None,
        shown=False,
    )
    metrics_directory: str | None = _setting(
        METRICS_DIRECTORY, "a directory, which app/server.py gives its workers", str, None, shown=False
    )
    log_format: str = _setting("LOG_FORMAT", "logfmt, json or console", _one_of("logfmt", "json", "console"), "logfmt")
    log_level: str = _setting(
        "LOG_LEVEL",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "INFO",
    )

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that a token may be signed with."""
        return self.jwt_algorithms or _usual_algorithms(self.jwt_public_key, secret=self.jwt_secret is not None)

    def described(self) -> dict[str, object]:
        """What is configured, for the log: no secret, the store without its user, and of keys where they come from."""
        (source,) = [each for each in _KEY_SOURCES if getattr(self, each.lower()) is not None] or ["JWT_ISSUER"]
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
        faults += _contradictions(environment, values)
        if faults:
            raise BadSettings("bad settings: " + "; ".join(faults))
        return cls(**values)


_KEY_SOURCES = ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL")
_SECRETS = ("JWT_SECRET", "JWT_SECRET_PREVIOUS")


def _contradictions(environment: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with variables that are good each for itself."""
    given = [variable for variable in _KEY_SOURCES if environment.get(variable)]
    issuer = environment.get("JWT_ISSUER", "")
    yield from _unfit_secrets(environment, values.get("jwt_algorithms", ()))
    if len(given) > 1:
        yield f"{' and '.join(given)} are set, of which one at most may be"
    elif not given and not issuer:
        yield f"one of {', '.join(_KEY_SOURCES)} and JWT_ISSUER is required, for the keys that verify tokens"
    elif not given and not is_trusted_address(issuer.replace(TENANT_PLACE, "tenant")):
        yield "JWT_ISSUER takes an https:// address where no other variable has the keys"
    else:
        (source,) = given or ["JWT_ISSUER"]
        fitting = _fitting_algorithms(values.get("jwt_public_key"), secret=source == "JWT_SECRET")
        if unfit := [name for name in values.get("jwt_algorithms", ()) if name not in fitting]:
            yield f"JWT_ALGORITHMS has {', '.join(unfit)}, which {source} does not fit"


def _unfit_secrets(environment: Mapping[str, str], algorithms: Sequence[str]) -> Iterator[str]:
    secret, previous = (environment.get(variable, "") for variable in _SECRETS)
    if previous and not secret:
        yield "JWT_SECRET_PREVIOUS is set without JWT_SECRET, which replaces it"
    longest = max((int(name[2:]) // 8 for name in algorithms if name in SECRET_ALGORITHMS), default=0)
    for variable, value in zip(_SECRETS, (secret, previous), strict=True):
        if value and len(value.encode(errors="replace")) < longest:
            yield f"{variable} takes {longest} bytes or more for JWT_ALGORITHMS as they are"


def _fitting_algorithms(pem: str | None, *, secret: bool) -> tuple[str, ...]:
    if secret:
        return SECRET_ALGORITHMS
    return PUBLIC_KEY_ALGORITHMS if pem is None else algorithms_for(public_key(pem))


def _usual_algorithms(pem: str | None, *, secret: bool) -> tuple[str, ...]:
    """The first that fits: HS256, what the key is for, or RS256."""
    return _fitting_algorithms(pem, secret=secret)[:1]
