"""The stored form of a change: a JSON object, decoded strictly.

Its members are `enabled`, `version`, `at` (milliseconds since 1970, by the store's clock), `by` (the token's subject or
null), `request` (the request ID), `id` (the change ID) and, if the author gave one, `reason`.

The form may only grow, by optional members: a release must read what every earlier release wrote. Members with other
names are ignored, because a later release may have written them. They stay, because a change moves into the history as
the bytes that were stored.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, NoReturn

from app.errors import StoreError
from app.model import MAX_VERSION, NEVER_SET, Author, Change, Setting

# Limits for stored values. What this release writes is far below the first two.
_MAX_BYTES: Final = 16_384
_MAX_TEXT: Final = 1_024
_MAX_AT: Final = 253_402_300_799_999  # the last millisecond of the year 9999
_MAX_IDENTIFIER: Final = 64
_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # JSON can escape a lone surrogate, which UTF-8 cannot encode


def new_change(setting: Setting, time: Sequence[bytes], author: Author) -> Change:
    """Return a change with a new ID. `time` is Redis's reply to TIME: seconds and microseconds.

    Raises StoreError if the version is above MAX_VERSION.
    """
    if setting.version > MAX_VERSION:
        raise StoreError(f"the setting has the highest version, {MAX_VERSION}, and cannot be changed again")
    seconds, microseconds = map(int, time)
    changed_at = datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=microseconds // 1000)
    return Change(setting, changed_at, author, os.urandom(16).hex())


def encode(change: Change) -> str:
    """Return the stored form of a change."""
    fields: dict[str, object] = {
        "enabled": change.setting.enabled,
        "version": change.setting.version,
        "at": round(change.changed_at.timestamp() * 1000),
        "by": change.author.subject,
        "request": change.author.request_id,
        "id": change.id,
    }
    if change.author.reason is not None:
        fields["reason"] = change.author.reason
    return _ENCODER.encode(fields)


def decode(key: str, value: bytes, version: int | None = None) -> Change:
    """Return the change that is stored under `key`, or in the field `version` of the hash `key`.

    Raises StoreError if the value is damaged, or if its version is not `version`.
    """
    location = key if version is None else f"{key} {version}"
    enabled, stored_version, at, by, request, change_id, reason = _fields(location, value)
    if version not in {None, stored_version}:
        raise StoreError(f"{location}: version: expected {version}, found {stored_version}")
    changed_at = datetime.fromtimestamp(at / 1000, UTC)
    return Change(Setting(enabled, stored_version), changed_at, Author(by, request, reason), change_id)


def setting_of(key: str, value: bytes | None) -> Setting:
    """Return the setting in the stored change `value` of `key`; None means never set.

    Raises StoreError if the value is damaged. A damaged value never becomes a default.
    """
    if value is None:
        return NEVER_SET
    enabled, version, *_ = _fields(key, value)
    return Setting(enabled, version)


def _fields(location: str, value: bytes) -> tuple[Any, ...]:
    """Return the members in the order of `_CHECKS`. Raises StoreError, with `location` and the fault, if damaged."""
    if len(value) > _MAX_BYTES:
        raise StoreError(f"{location}: expected at most {_MAX_BYTES} bytes, found {len(value)}")
    try:
        members = _DECODER.decode(value.decode())
        fields = (*_REQUIRED(members), members.get("reason"))
    except KeyError as error:
        raise StoreError(f"{location}: expected a member {error}") from None
    # TypeError: JSON, but not an object. ValueError: not UTF-8, not JSON, or a number of more than 4,300 digits.
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{location}: expected a JSON object") from error
    for field, (name, is_valid, expected) in zip(fields, _CHECKS, strict=True):
        if not is_valid(field):
            raise StoreError(f"{location}: {name}: expected {expected}")
    return fields


def _object_with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) < len(pairs):
        raise ValueError("expected each name once in an object")
    return members


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_enabled(value: object) -> bool:
    return type(value) is bool


def _is_version(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_VERSION


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_AT


def _is_text_or_null(value: Any) -> bool:
    if type(value) is not str:
        return value is None
    return len(value) <= _MAX_TEXT and (value.isascii() or not _SURROGATE.search(value))


def _is_identifier(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_IDENTIFIER and value.isascii() and value.isprintable()


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object_with_unique_names, parse_constant=_reject_constant)
_TEXT_OR_NULL: Final = f"null or at most {_MAX_TEXT} characters, without lone surrogates"
_IDENTIFIER_TEXT: Final = f"1 to {_MAX_IDENTIFIER} printable ASCII characters"
_CHECKS: Final[Sequence[tuple[str, Callable[[Any], bool], str]]] = (
    ("enabled", _is_enabled, "true or false"),
    ("version", _is_version, f"a whole number from 1 to {MAX_VERSION}"),
    ("at", _is_time, f"a whole number from 0 to {_MAX_AT}"),
    ("by", _is_text_or_null, _TEXT_OR_NULL),
    ("request", _is_identifier, _IDENTIFIER_TEXT),
    ("id", _is_identifier, _IDENTIFIER_TEXT),
    ("reason", _is_text_or_null, _TEXT_OR_NULL),
)
_REQUIRED: Final = itemgetter(*(name for name, _, _ in _CHECKS if name != "reason"))
