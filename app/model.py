"""Frozen values that the parts of the service exchange, and the rules for a tenant name and for a reason."""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from zlib import crc32

MAX_VERSION = 10**18 - 1  # the highest that `If-Match` accepts
TENANT_PATTERN = "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
MAX_REASON = 200  # characters


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request, from its token: tenant, subject (`sub`, None if absent) and granted scopes."""

    tenant: str
    subject: str | None
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting of one tenant. `version` counts its changes: 0 means that it was never set."""

    enabled: bool
    version: int


NEVER_SET = Setting(enabled=False, version=0)


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a change: the token's subject, the ID of the request, the reason, and the request's trace ID.

    None means absent. The trace ID is for the log only, and is not stored.
    """

    subject: str | None
    request_id: str
    reason: str | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A stored change: the setting after it, its time in UTC by the store's clock, its author, and its generated ID.

    Unlike a caller's request ID, the ID of a change never repeats.
    """

    setting: Setting
    changed_at: datetime
    author: Author
    id: str


@dataclass(frozen=True, slots=True)
class History:
    """Changes of one tenant, newest first."""

    tenant: str
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The value of one feature flag for one tenant."""

    key: str
    setting: Setting


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The values of all feature flags for one tenant. They change only when `version` does."""

    flags: Sequence[Evaluation]
    version: int


@dataclass(frozen=True, slots=True)
class EventId:
    """The ID of an event: the version of the setting, and a checksum of the change's ID.

    If the store loses changes, later ones reuse their versions. The checksum shows that a version has another change.
    It is empty for version 0, which has no change, and for a client that sent only a version.
    """

    version: int
    checksum: str = ""

    @classmethod
    def of(cls, change: Change | None) -> Self:
        """Return the ID of the event of `change`. None is a setting that was never set."""
        # Not a part of the ID itself: the ID of a change that an operator wrote may not fit into a header.
        return cls(0) if change is None else cls(version_of(change), f"{crc32(change.id.encode()):08x}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the ID with this text: a version, optionally followed by `-` and the checksum."""
        version, _, checksum = text.partition("-")
        return cls(int(version), checksum)

    def __str__(self) -> str:
        return f"{self.version}-{self.checksum}" if self.checksum else str(self.version)

    def matches(self, change: Change | None) -> bool:
        """Return True if the event of `change` can have this ID."""
        actual = EventId.of(change)
        return self.version == actual.version and self.checksum in {"", actual.checksum}


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """One event for a subscriber: a change, or None for a setting that was never set.

    If `is_reset` is true, the changes between the subscriber's last event and this one are not available.
    """

    change: Change | None
    is_reset: bool = False


def version_of(change: Change | None) -> int:
    """Return the version of the setting after `change`, or 0 if there was none."""
    return NEVER_SET.version if change is None else change.setting.version


# The versions that a conditional change accepts as the current one. None accepts any version.
Expected = Container[int] | None


def is_tenant_name(value: object) -> bool:
    """Return True if `value` is 1 to 63 characters of `a-z 0-9 - _` that start and end with a letter or digit."""
    return isinstance(value, str) and re.fullmatch(TENANT_PATTERN, value, re.ASCII) is not None


def is_reason(text: str) -> bool:
    """Return True if `text` is 1 to `MAX_REASON` printable characters, so neither control characters nor line ends."""
    return 0 < len(text) <= MAX_REASON and text.isprintable()
