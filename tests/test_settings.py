import base64
import contextlib
import dataclasses
import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings, SettingsError, unknown_variables
from app.store.redis_url import Address
from tests.provider import RSA_KEYS, jwk, pem

PEM = pem(RSA_KEYS[0])
BASE64 = "".join(PEM.splitlines()[1:-1])
WEAK_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - tests a weak key
SSH = RSA_KEYS[0].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
REQUIRED = {"REDIS_URL": "redis://localhost:6379/0", "JWT_SECRET": "s" * 32}


def faults(**environment: str) -> str:
    with pytest.raises(SettingsError) as raised:
        Settings.read(REQUIRED | environment)
    return str(raised.value)


def test_only_the_store_and_a_key_have_no_default() -> None:
    settings = Settings.read(REQUIRED)
    assert dataclasses.asdict(settings) == {
        "port": 8000, "workers": 1, "redis": dataclasses.asdict(Address.parse(REQUIRED["REDIS_URL"])),
        "redis_tls_verify": True, "redis_timeout": 1.0, "redis_min_replicas": 0,
        "redis_sentinel_quorum": "majority", "redis_sentinel_username": None, "redis_sentinel_password": None,
        "jwt_secret": REQUIRED["JWT_SECRET"], "jwt_secret_previous": None,
        "jwt_public_key": None, "jwt_jwks_url": None, "jwt_issuer": None,
        "jwt_algorithms": None, "jwt_audience": None, "jwt_tenant_claim": "tenant", "jwt_leeway": 0.0,
        "jwt_jwks_ttl": 300.0, "jwt_scope_claim": None, "jwt_read_scope": None, "jwt_write_scope": None,
        "tenant_host": None, "max_body_bytes": 16384, "keep_alive": 95, "history_length": 1000,
        "cors_allow_origins": (),
        "docs_url": "https://docs.newstore.net", "ui_note": None, "metrics_token": None, "metrics_directory": None,
        "log_format": "logfmt", "log_level": "INFO",
    }  # fmt: skip


def test_each_variable_is_read() -> None:
    settings = Settings.read(
        {
            "PORT": "80", "WEB_CONCURRENCY": "2", "REDIS_URL": "redis+sentinel://host/oms", "REDIS_TIMEOUT": "0.5",
            "REDIS_TLS_VERIFY": "false", "REDIS_MIN_REPLICAS": "1", "REDIS_SENTINEL_QUORUM": "any",
            "REDIS_SENTINEL_USERNAME": "oms", "REDIS_SENTINEL_PASSWORD": "päss", "JWT_SECRET": "x" * 64,
            "JWT_ISSUER": "me", "JWT_ALGORITHMS": "HS512, HS256", "JWT_AUDIENCE": "you",
            "JWT_TENANT_CLAIM": "realm", "JWT_LEEWAY": "10", "JWT_JWKS_TTL": "60", "JWT_SCOPE_CLAIM": "roles",
            "JWT_READ_SCOPE": "oms:read",
            "JWT_WRITE_SCOPE": "oms:write", "TENANT_HOST": "{tenant}.example.net", "MAX_BODY_BYTES": "100",
            "KEEP_ALIVE": "620", "HISTORY_LENGTH": "50", "CORS_ALLOW_ORIGINS": "https://a.example, HTTP://B.example:80,http://[::1]:8080",
            "METRICS_TOKEN": "m" * 16, "PROMETHEUS_MULTIPROC_DIR": "/metrics",
            "DOCS_URL": "http://docs.example/", "UI_NOTE": "Ask Änne.", "LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG",
        }
    )  # fmt: skip
    assert settings.redis == Address(kind="sentinels", hosts=(("host", 26379),), service="oms")
    assert dataclasses.astuple(dataclasses.replace(settings, redis=None)) == (  # type: ignore[arg-type]  # compared above
        80, 2, None, False, 0.5, 1, "any", "oms", "päss", "x" * 64, None, None, None, "me",
        ("HS512", "HS256"), "you", "realm", 10.0, 60.0, "roles", "oms:read", "oms:write", "{tenant}.example.net", 100,
        620, 50,
        ("https://a.example", "http://b.example", "http://[::1]:8080"), "http://docs.example", "Ask Änne.",
        "m" * 16, "/metrics", "json", "DEBUG",
    )  # fmt: skip


def test_one_message_names_every_bad_variable_and_its_expectation() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.read({"PORT": "x", "REDIS_TIMEOUT": "-1", "JWT_SECRET": "short"})
    assert str(raised.value) == (
        "bad settings: PORT must be a port, 1 to 65535; "
        "REDIS_URL is missing; it must be redis://host:port/db, rediss://host:port/db, unix:///path, "
        "redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port; "
        "REDIS_TIMEOUT must be a number of seconds, 0.01 to 60; "
        "JWT_SECRET must be a secret of 32 bytes or more"
    )


@pytest.mark.parametrize(
    ("variable", "value", "parsed"),
    [
        ("LOG_LEVEL", "warn", "WARNING"),
        ("LOG_LEVEL", "info", "INFO"), ("LOG_LEVEL", "Warning", "WARNING"), ("LOG_FORMAT", "JSON", "json"),
        ("REDIS_TLS_VERIFY", "False", False), ("REDIS_TLS_VERIFY", "TRUE", True),
        ("JWT_ALGORITHMS", "hs512,HS256", ("HS512", "HS256")),
    ],
)  # fmt: skip
def test_words_may_have_upper_and_lower_case(variable: str, value: str, parsed: object) -> None:
    settings = Settings.read(REQUIRED | {"JWT_SECRET": "s" * 64, variable: value})
    assert getattr(settings, variable.lower()) == parsed


@pytest.mark.parametrize("names", ["EdDSA", "Ed25519", "eddsa", "ED25519"])
def test_ed25519_is_another_name_of_eddsa(names: str) -> None:
    provider = {"JWT_SECRET": "", "JWT_ISSUER": "https://id.example", "JWT_ALGORITHMS": names}
    assert Settings.read(REQUIRED | provider).algorithms == ("EdDSA",)


EXACT = [field.metadata["variable"] for field in dataclasses.fields(Settings) if field.name != "jwt_public_key"]


@pytest.mark.parametrize("variable", EXACT)
@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}", "{}\t", "\n", "\ufeff{}", "{}\u200b"])
def test_white_space_around_a_value_is_named(variable: str, around: str) -> None:
    reason = "it begins or ends with white space or an invisible character, such as a line end; printf %s writes none"
    value = around.format("x" * 64)
    assert re.search(f"{variable} must be [^;]+; {reason}(;|$)", faults(**{variable: value}))


@pytest.mark.parametrize("variable", EXACT)
@pytest.mark.parametrize("value", ['""', "''", '"' + "x" * 64 + '"', "'" + "x" * 64 + "'", '"'])
def test_quotation_marks_around_a_value_are_named(variable: str, value: str) -> None:
    reason = "it is in quotation marks, which are a part of the value; remove them"
    assert re.search(f"{variable} must be [^;]+; {reason}(;|$)", faults(**{variable: value}))


@pytest.mark.parametrize("variable", ["JWT_ISSUER", "JWT_AUDIENCE", "JWT_READ_SCOPE", "JWT_WRITE_SCOPE", "TENANT_HOST"])
def test_check_without_a_value_is_rejected(variable: str) -> None:
    expected = f"bad settings: {variable} is empty: set it, or remove it so that it is not checked"
    assert faults(**{variable: ""}) == expected


def test_misspelt_variables_are_found() -> None:
    environment = REQUIRED | {
        "JWT_ISUER": "x", "JWT_AUD": "x", "jwt_audience": "x", "TENANT_HOSTS": "x", "REDIS_TIME_OUT": "x",
    }  # fmt: skip
    assert unknown_variables(environment) == {
        "JWT_AUD": None, "JWT_ISUER": "JWT_ISSUER", "REDIS_TIME_OUT": "REDIS_TIMEOUT", "TENANT_HOSTS": "TENANT_HOST",
        "jwt_audience": "JWT_AUDIENCE",
    }  # fmt: skip
    assert Settings.read(environment) == Settings.read(REQUIRED)


def test_variables_of_platforms_and_manifests_are_not_reported() -> None:
    platform = (
        "REDIS_TLS_URL", "REDIS_TEMPORARY_URL", "REDIS_URL_1", "HEROKU_REDIS_COPPER_URL", "REDIS_HOST", "REDIS_PORT",
        "REDIS_PORT_6379_TCP_ADDR", "REDIS_SERVICE_PORT", "REDIS_ENV_GOSU_VERSION", "REDIS_NAME", "REDIS_PASSWORD",
        "REDIS_USERNAME",
        "SSL_CERT_FILE", "PORT0", "HOST", "DYNO",
        "TZ", "PATH", "HOSTNAME", "VALKEY_URL", "LOG_DIR", "WEB_MEMORY", "OMS_CONFIG_URL", "DATABASE_URL",
    )  # fmt: skip
    assert unknown_variables(REQUIRED | {"PORT": "1"} | dict.fromkeys(platform, "x")) == {}


def test_error_names_similar_unknown_variables() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.read({"REDIS_URLS": "redis://h", "JWT_SECRETS": "hunter2"})
    assert str(raised.value).endswith(
        "; JWT_SECRETS is unknown; similar: JWT_SECRET; REDIS_URLS is unknown; similar: REDIS_URL"
    )


def test_public_key_may_come_from_an_environment_file() -> None:
    for value in (PEM.replace("\n", "\\n"), PEM + "\n\n", '"' + PEM.replace("\n", "\\n") + '"'):
        settings = Settings.read(REQUIRED | {"JWT_SECRET": "", "JWT_PUBLIC_KEY": value})
        assert settings.jwt_public_key == RSA_KEYS[0].public_key()


@pytest.mark.parametrize("variable", ["JWT_SECRET", "JWT_SECRET_PREVIOUS"])
@pytest.mark.parametrize(
    "value",
    [
        PEM.replace("\n", "\\n") + "x",
        BASE64,
        base64.b64encode(PEM.encode()).decode(),
        "".join(pem(WEAK_KEY).splitlines()[1:-1]),
        json.dumps(jwk(RSA_KEYS[0])),
        json.dumps(jwk(RSA_KEYS[0]), indent=1),
        SSH,
    ],
)
def test_public_key_is_no_secret(variable: str, value: str) -> None:
    fault = faults(**{variable: value})
    assert re.search(f"{variable} must be [^;]+; it is a key of a key pair: [^;]+; use JWT_PUBLIC_KEY", fault)


@pytest.mark.parametrize("value", ["c2VjcmV0" * 6, "{" + "x" * 40 + "}", "MIIB" * 20, "0" * 64, "ä" * 32])
def test_other_texts_are_secrets(value: str) -> None:
    assert Settings.read(REQUIRED | {"JWT_SECRET": value}).jwt_secret == value


def test_several_public_keys_are_refused() -> None:
    fault = faults(JWT_SECRET="", JWT_PUBLIC_KEY=PEM + pem(RSA_KEYS[1]))
    assert fault.endswith("; it contains several keys or certificates; keep only the one of the signer")


@pytest.mark.parametrize("variable", ["JWT_SECRET", "REDIS_SENTINEL_PASSWORD", "METRICS_TOKEN", "JWT_AUDIENCE"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * 64 + "\\n", "it ends with a backslash and a letter, which are no line end; remove them"),
        ("${SECRET}" + "x" * 64, "it contains the name of a variable in ${} or $(), which nothing has replaced"),
        (f"$({'X' * 64})", "it contains the name of a variable in ${} or $(), which nothing has replaced"),
    ],
)
def test_escaped_line_end_and_variable_are_named(variable: str, value: str, reason: str) -> None:
    assert re.search(f"{variable} must be [^;]+; {re.escape(reason)}", faults(**{variable: value}))


def test_unusable_public_key_is_described() -> None:
    assert faults(JWT_SECRET="", JWT_PUBLIC_KEY=pem(WEAK_KEY)).startswith(
        "bad settings: JWT_PUBLIC_KEY must be a public key or certificate in PEM: RSA of 2048 to 8192 bits, "
        "EC (P-256, P-384, P-521) or Ed25519; it is an RSA key of 1024 bits with an exponent of 17 bits"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("PORT", value) for value in ("0", "65536", "-1", "80.0", " 80", "8_0", "٨٠", "1e3", "9" * 5000)),
        *(("WEB_CONCURRENCY", value) for value in ("0", "65", "two")),
        *(("REDIS_TIMEOUT", value) for value in ("0", "nan", "inf", "1s", "-1", "1e9")),
        *(
            ("REDIS_URL", value)
            for value in (
                "localhost", "http://localhost", "redis://", "redis://h:port", "redis://h:0", "redis://h/x", "unix:",
                "redis://[::1", "redis://h/0?foo=bar", "redis://h/0?socket_timeout=abc", "unix:///x?db=1",
                "redis://h/0#x", "redis://h,i", "redis+sentinel://h", "redis+sentinel://h/s/x", "redis+sentinel://h,/s",
                "redis+sentinel://h/s?tls=yes", "redis+cluster://h/1", "redis+cluster://", "redis+cluster://h:0",
                "redis+cluster://h?x=1", "rediss+cluster://h?tls=false", "unix://h/path", "redis-sentinel://h/s",
                "redis+sentinel://oms:6379/s3cret@host:26379", "unix:///", "redis:///0", "redis://h?tls=true&tls=true",
            )
        ),
        *(("REDIS_TLS_VERIFY", value) for value in ("no", "0")),
        *(("REDIS_MIN_REPLICAS", value) for value in ("-1", "11", "x", "0" * 19 + "999")),
        *(("REDIS_SENTINEL_QUORUM", value) for value in ("all", "2")),
        *((f"REDIS_SENTINEL_{name}", "\udcff") for name in ("USERNAME", "PASSWORD")),
        *(("JWT_SECRET", value) for value in ("x" * 31, "\udcff" * 40)),
        *(("JWT_SECRET_PREVIOUS", value) for value in ("x" * 31, "\udcff" * 40)),
        *(("JWT_TENANT_CLAIM", value) for value in (" ", "a b", "exp", "iss", "a\n")),
        *(("JWT_SCOPE_CLAIM", value) for value in ("a b", "iss")),
        *(("JWT_LEEWAY", value) for value in ("-1", "601", "x")),
        *(("HISTORY_LENGTH", value) for value in ("0", "100001", "x")),
        *(("MAX_BODY_BYTES", value) for value in ("0", "63", "1048577")),
        *(
            ("CORS_ALLOW_ORIGINS", value)
            for value in (
                "a.example", "https://a.example/", "https://a.example,", "*,https://a.example", "https://*.example",
                "https://a.example:0", "https://u@a.example", "null", "ftp://a.example",
                "https://a.example https://b.example", "https://", "https://ä.example",
            )
        ),
        *(
            ("DOCS_URL", value)
            for value in (
                "docs.example", "ftp://docs.example", "https://", "https://x/?q", "https://x/#f", "https://x/\n",
                "http://x:port", "http://x y", "https://user:secret@x",
            )
        ),
        *(("JWT_PUBLIC_KEY", value) for value in ("x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")),
        *(
            ("JWT_JWKS_URL", value)
            for value in ("http://id.example", "id.example/keys", "https://x/\n", "https://x/{tenant}", "https://x:p")
        ),
        *(
            ("JWT_ISSUER", value)
            for value in ("https://{tenant}.id.example/{tenant}", "https://x/{Tenant}", "https://x/ ", "x\n")
        ),
        *(("JWT_ALGORITHMS", value) for value in ("none", "HS256,none", "HS1", ",", "RS256;ES256", "Ed448")),
        *(("JWT_JWKS_TTL", value) for value in ("9", "86401", "x")),
        *(("JWT_READ_SCOPE", value) for value in ("a b", 'a"b', "a\\b", "\u00e4")),
        *(("JWT_WRITE_SCOPE", value) for value in (" ",)),
        *(("TENANT_HOST", value) for value in ("x.example", "{tenant}{tenant}", "{tenant}.x:80", "https://{tenant}.x")),
        *(("METRICS_TOKEN", value) for value in ("m" * 15, "m" * 15 + " ", "\u00e4" * 16)),
        *(("UI_NOTE", value) for value in ("x" * 501, "a\nb", "\x00")),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "quiet"),
    ],
)  # fmt: skip
def test_bad_value_is_rejected(variable: str, value: str) -> None:
    assert faults(**{variable: value}).startswith(f"bad settings: {variable} must be ")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"TENANT_HOST": "{tennant}.x.newstore.net"}, "{tenant} must be in it exactly once"),
        ({"TENANT_HOST": "x.newstore.net"}, "{tenant} must be in it exactly once"),
        ({"TENANT_HOST": "{tenant}.{tenant}"}, "{tenant} must be in it exactly once"),
        ({"TENANT_HOST": "https://{tenant}.x"}, "it has a scheme, a port or a path; a host has none"),
        ({"TENANT_HOST": "{tenant}.x:443"}, "it has a scheme, a port or a path; a host has none"),
        ({"JWT_SECRET": "", "JWT_JWKS_URL": "http://id.example/keys"}, "http:// is for loopback addresses only"),
        ({"JWT_SECRET": "", "JWT_ISSUER": "http://id.example"}, "http:// is for loopback addresses only"),
        (
            {"JWT_SECRET": "", "JWT_ISSUER": "https://id.example/realms/{tenant}/.well-known/openid-configuration"},
            "it is the address of the discovery document: leave out /.well-known/openid-configuration",
        ),
    ],
)
def test_known_mistake_is_named(environment: dict[str, str], reason: str) -> None:
    assert faults(**environment).endswith(f"; {reason}")


@pytest.mark.parametrize(
    "value",
    [
        "hunter2", "hunter2\n", '"hunter2"', "redis://:hunter2@host:port", "redis://hunter2/?@h", "redis://h?hunter2",
        "-----BEGIN PUBLIC KEY-----hunter2-----END ", "https://hunter2@id.example/{tenant}/{tenant}", "hunter2,RS256",
    ],
)  # fmt: skip
def test_no_value_is_quoted(value: str) -> None:
    variables = [field.metadata["variable"] for field in dataclasses.fields(Settings)]
    assert "hunter" not in faults(**dict.fromkeys(variables, value))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read({**REQUIRED, "PORT": ""}).port == 8000
    assert "REDIS_URL is missing" in faults(REDIS_URL="")


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        (
            {"JWT_SECRET": ""},
            "no key to verify tokens: set one of JWT_SECRET, JWT_PUBLIC_KEY, JWT_JWKS_URL and JWT_ISSUER",
        ),
        ({"JWT_JWKS_URL": "https://x"}, "JWT_SECRET and JWT_JWKS_URL are set: set only one of them"),
        (
            {"JWT_JWKS_URL": "https://x", "JWT_PUBLIC_KEY": PEM},
            "JWT_SECRET and JWT_PUBLIC_KEY and JWT_JWKS_URL are set: set only one of them",
        ),
        (
            {"JWT_SECRET": "", "JWT_ISSUER": "me"},
            "JWT_ISSUER must be an https:// address if no other variable provides the keys",
        ),
        ({"JWT_SECRET": "", "JWT_ISSUER": "http://id.example/{tenant}"}, "JWT_ISSUER must be an https:// address if"),
        (
            {"JWT_SECRET": "", "JWT_ISSUER": "https://x", "JWT_SECRET_PREVIOUS": "x" * 32},
            "JWT_SECRET_PREVIOUS is set without",
        ),
        (
            {"REDIS_SENTINEL_QUORUM": "majority", "REDIS_SENTINEL_PASSWORD": "hunter2"},
            "REDIS_SENTINEL_QUORUM and REDIS_SENTINEL_PASSWORD can be set only if REDIS_URL is a redis+sentinel://",
        ),
        (
            {"REDIS_URL": "redis+sentinel://host/oms", "REDIS_SENTINEL_USERNAME": "oms"},
            "REDIS_SENTINEL_USERNAME is set without REDIS_SENTINEL_PASSWORD: set both, or only the password",
        ),
        (
            {"JWT_SECRET": "x" * 64, "JWT_SECRET_PREVIOUS": "x" * 32, "JWT_ALGORITHMS": "HS512"},
            "JWT_SECRET_PREVIOUS must be 64 bytes or more",
        ),
        ({"JWT_ALGORITHMS": "HS256,HS512"}, "JWT_SECRET must be 64 bytes or more for the algorithms in JWT_ALGORITHMS"),
        ({"JWT_ALGORITHMS": "HS256,RS256"}, "JWT_ALGORITHMS has RS256, which does not fit JWT_SECRET"),
        (
            {"JWT_SECRET": "", "JWT_PUBLIC_KEY": PEM, "JWT_ALGORITHMS": "HS256,RS256,ES256"},
            "JWT_ALGORITHMS has HS256, ES256, which does not fit JWT_PUBLIC_KEY",
        ),
        (
            {"JWT_SECRET": "", "JWT_ISSUER": "https://id.example", "JWT_ALGORITHMS": "HS256"},
            "JWT_ALGORITHMS has HS256, which does not fit JWT_ISSUER",
        ),
        (
            {"JWT_SECRET": "", "JWT_JWKS_URL": "https://id.example", "JWT_ALGORITHMS": "HS512"},
            "JWT_ALGORITHMS has HS512, which does not fit JWT_JWKS_URL",
        ),
    ],
)
def test_contradictions_name_the_variables(environment: dict[str, str], fault: str) -> None:
    assert faults(**environment).startswith(f"bad settings: {fault}")


@pytest.mark.parametrize(
    ("environment", "default"),
    [
        ({}, "HS256"),
        ({"JWT_SECRET": "", "JWT_PUBLIC_KEY": PEM}, "RS256"),
        ({"JWT_SECRET": "", "JWT_PUBLIC_KEY": pem(ec.generate_private_key(ec.SECP384R1()))}, "ES384"),
        ({"JWT_SECRET": "", "JWT_JWKS_URL": "https://id.example/keys"}, "RS256"),
        ({"JWT_SECRET": "", "JWT_ISSUER": "https://id.example/{tenant}"}, "RS256"),
    ],
)
def test_default_algorithm_fits_the_key(environment: dict[str, str], default: str) -> None:
    assert Settings.read(REQUIRED | environment).algorithms == (default,)


@given(
    st.dictionaries(st.sampled_from([each.metadata["variable"] for each in dataclasses.fields(Settings)]), st.text())
)
def test_any_environment_is_read_or_rejected(environment: dict[str, str]) -> None:
    with contextlib.suppress(SettingsError):
        Settings.read(environment)


def test_secrets_are_not_in_the_representation() -> None:
    settings = Settings.read(
        {
            "REDIS_URL": "redis+sentinel://user:hunter2@localhost/oms",
            "REDIS_SENTINEL_USERNAME": "hunter5",
            "REDIS_SENTINEL_PASSWORD": "hunter6",
            "JWT_SECRET": "hunter3" * 5,
            "JWT_SECRET_PREVIOUS": "hunter4" * 5,
        }
    )
    provider = Settings.read(REQUIRED | {"JWT_SECRET": "", "JWT_JWKS_URL": "https://id.example/keys?code=hunter7"})
    assert provider.described()["jwt_jwks_url"] == "https://id.example/keys"
    assert "hunter" not in f"{settings!r} {settings.described()} {settings.redis_address!r}"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.read(REQUIRED).port = 1  # type: ignore[misc]
