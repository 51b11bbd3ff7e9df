"""The stored form of a change: a JSON object, written by `StoredChange.encode` and read strictly.

Its members are `enabled`, `version`, `at` (ms since 1970, by the store's clock), `by` (the token's subject or null),
`request` (the request's identifier) and `id` (the change's own identifier). Members with other names are ignored.
"""

import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, NoReturn, Self

from app.errors import StoreError
from app.model import MAX_VERSION, NEVER_SET, Author, Change, Setting

# Bounds of what is read. What is written stays far below the first two, so that no release writes what it cannot read.
_MAX_BYTES: Final = 16_384
_MAX_SUBJECT: Final = 1_024
_MAX_AT: Final = 253_402_300_799_999  # the last millisecond of the year 9999
_MAX_IDENTIFIER: Final = 64
_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # JSON can spell halves of characters, which UTF-8 cannot


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A change and its identifier."""

    change: Change
    change_id: str

    @property
    def version(self) -> int:
        """The version that the change led to."""
        return self.change.setting.version

    def encode(self) -> str:
        """Return the stored form."""
        fields = {
            "enabled": self.change.setting.enabled,
            "version": self.version,
            "at": round(self.change.changed_at.timestamp() * 1000),
            "by": self.change.author.subject,
            "request": self.change.author.request_id,
            "id": self.change_id,
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def make(cls, setting: Setting, time: Sequence[bytes], author: Author) -> Self:
        """Return a new change. `time` is Redis's reply to TIME: seconds and microseconds.

        Raises StoreError if the version is too high to be read again.
        """
        if setting.version > MAX_VERSION:
            raise StoreError(f"no version follows {MAX_VERSION}")
        seconds, microseconds = map(int, time)
        changed_at = datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=microseconds // 1000)
        return cls(Change(setting, changed_at, author), uuid.uuid4().hex)

    @classmethod
    def decode(cls, key: str, value: bytes, version: int | None = None) -> Self:
        """Return the change that is stored under `key`, or in the field `version` of the hash `key`.

        Raises StoreError if the value is damaged, or is a change to another version than its field says.
        """
        place = key if version is None else f"{key} {version}"
        enabled, inner, at, by, request, change_id = _fields(place, value)
        if version not in {None, inner}:
            raise StoreError(f"{place}: version: expected that of the field, found {inner}")
        changed_at = datetime.fromtimestamp(at / 1000, UTC)
        return cls(Change(Setting(enabled, inner), changed_at, Author(by, request)), change_id)


def setting_of(key: str, value: bytes | None) -> Setting:
    """Return the setting that is stored under `key`. Raises StoreError if the value is damaged: there is no default."""
    if value is None:
        return NEVER_SET
    enabled, version, *_ = _fields(key, value)
    return Setting(enabled, version)


def _fields(place: str, value: bytes) -> tuple[Any, ...]:
    """Return the members of the stored change at `place`. Raises StoreError with place and fault if it is damaged."""
    if len(value) > _MAX_BYTES:
        raise StoreError(f"{place}: expected at most {_MAX_BYTES} bytes, found {len(value)}")
    try:
        fields: tuple[Any, ...] = _MEMBERS(_DECODER.decode(value.decode()))
    except KeyError as error:
        raise StoreError(f"{place}: expected a member {error}") from None
    # TypeError: JSON of another type. ValueError: not UTF-8, not JSON, or a number of more than 4,300 digits.
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{place}: expected a JSON object") from error
    for field, (name, is_valid, expected) in zip(fields, _CHECKS, strict=True):
        if not is_valid(field):
            raise StoreError(f"{place}: {name}: expected {expected}")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) < len(pairs):
        raise ValueError("expected each member once in an object")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_enabled(value: object) -> bool:
    return type(value) is bool


def _is_version(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_VERSION


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_AT


def _is_subject(value: Any) -> bool:
    if type(value) is not str:
        return value is None
    return len(value) <= _MAX_SUBJECT and (value.isascii() or not _SURROGATE.search(value))


def _is_identifier(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_IDENTIFIER and value.isascii() and value.isprintable()


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_IDENTIFIER_TEXT: Final = f"1 to {_MAX_IDENTIFIER} printable ASCII characters"
_CHECKS: Final[Sequence[tuple[str, Callable[[Any], bool], str]]] = (
    ("enabled", _is_enabled, "true or false"),
    ("version", _is_version, f"a whole number from 1 to {MAX_VERSION}"),
    ("at", _is_time, f"a whole number from 0 to {_MAX_AT}"),
    ("by", _is_subject, f"null or at most {_MAX_SUBJECT} whole characters"),
    ("request", _is_identifier, _IDENTIFIER_TEXT),
    ("id", _is_identifier, _IDENTIFIER_TEXT),
)
_MEMBERS: Final = itemgetter(*(name for name, _, _ in _CHECKS))
