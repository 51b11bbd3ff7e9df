import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import BadSettings, Settings

NEEDED = {"REDIS_URL": "redis://localhost:6379/0", "JWT_SECRET": "s" * 32}


def faults(**environment: str) -> str:
    with pytest.raises(BadSettings) as raised:
        Settings.read(NEEDED | environment)
    return str(raised.value)


def test_only_the_store_and_a_key_have_no_default() -> None:
    settings = Settings.read(NEEDED)
    assert dataclasses.asdict(settings) == {
        "port": 8000, "workers": 1, "redis_url": NEEDED["REDIS_URL"], "redis_timeout": 1.0,
        "jwt_secret": NEEDED["JWT_SECRET"], "jwt_issuer": None, "jwt_audience": None, "jwt_tenant_claim": "tenant",
        "jwt_leeway": 0.0, "max_body_bytes": 16384, "docs_url": "https://docs.newstore.net", "log_format": "logfmt",
        "log_level": "INFO",
    }  # fmt: skip


def test_each_variable_is_read() -> None:
    settings = Settings.read(
        {
            "PORT": "80", "WEB_CONCURRENCY": "2", "REDIS_URL": "unix:///run/redis.sock", "REDIS_TIMEOUT": "0.5",
            "JWT_SECRET": "x" * 40, "JWT_ISSUER": "me", "JWT_AUDIENCE": "you", "JWT_TENANT_CLAIM": "realm",
            "JWT_LEEWAY": "10", "MAX_BODY_BYTES": "100", "DOCS_URL": "http://docs.example/", "LOG_FORMAT": "json",
            "LOG_LEVEL": "DEBUG",
        }
    )  # fmt: skip
    assert dataclasses.astuple(settings) == (
        80, 2, "unix:///run/redis.sock", 0.5, "x" * 40, "me", "you", "realm", 10.0, 100, "http://docs.example", "json",
        "DEBUG",
    )  # fmt: skip


def test_one_message_names_every_variable_at_fault_and_what_it_takes() -> None:
    with pytest.raises(BadSettings) as raised:
        Settings.read({"PORT": "x", "REDIS_TIMEOUT": "-1", "JWT_SECRET": "short"})
    assert str(raised.value) == (
        "bad settings: PORT takes a port, 1 to 65535; "
        "REDIS_URL is missing; it takes redis://host:port/db, rediss://host:port/db or unix:///path; "
        "REDIS_TIMEOUT takes seconds, 0.01 to 60; "
        "JWT_SECRET takes a secret of 32 bytes or more"
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
                "redis://[::1",
            )
        ),
        *(("JWT_SECRET", value) for value in ("x" * 31, "\udcff" * 40)),
        *(("JWT_LEEWAY", value) for value in ("-1", "601", "x")),
        *(("MAX_BODY_BYTES", value) for value in ("0", "63", "1048577")),
        *(
            ("DOCS_URL", value)
            for value in ("docs.example", "ftp://docs.example", "https://", "https://x/?q", "https://x/#f", "https://x/\n")
        ),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "info"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused(variable: str, value: str) -> None:
    assert faults(**{variable: value}).startswith(f"bad settings: {variable} takes ")


def test_no_value_is_quoted() -> None:
    assert "hunter" not in faults(REDIS_URL="redis://:hunter2@host:port", JWT_SECRET="hunter3", PORT="hunter4")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read({**NEEDED, "PORT": ""}).port == 8000
    assert "JWT_SECRET is missing" in faults(JWT_SECRET="")


@given(
    st.dictionaries(st.sampled_from([each.metadata["variable"] for each in dataclasses.fields(Settings)]), st.text())
)
def test_whatever_stands_in_the_environment_it_is_read_or_refused(environment: dict[str, str]) -> None:
    with contextlib.suppress(BadSettings):
        Settings.read(environment)


def test_secrets_are_in_no_representation() -> None:
    settings = Settings.read({"REDIS_URL": "redis://user:hunter2@localhost", "JWT_SECRET": "hunter3" * 5})
    assert "hunter" not in repr(settings)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.read(NEEDED).port = 1  # type: ignore[misc]
