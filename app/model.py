"""Frozen values that the parts of the service exchange, and the rules for a valid tenant name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MAX_VERSION = 10**18 - 1  # the highest that `If-Match` accepts
TENANT_PATTERN = "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"


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
    """The author of a change: the token's subject (None if absent) and the ID of the request."""

    subject: str | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Change:
    """A stored change: the setting after it, its time in UTC by the store's clock, and its author."""

    setting: Setting
    changed_at: datetime
    author: Author


@dataclass(frozen=True, slots=True)
class History:
    """Changes of one tenant, newest first."""

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
Expected = frozenset[int] | None


def is_tenant_name(value: object) -> bool:
    """Return True if `value` is 1 to 63 characters of `a-z 0-9 - _` that start and end with a letter or digit."""
    return isinstance(value, str) and re.fullmatch(TENANT_PATTERN, value, re.ASCII) is not None
