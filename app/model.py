"""The frozen values that pass between the parts, and what makes each of them well-formed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MAX_VERSION = 10**18 - 1  # the highest that `If-Match` can name
TENANT_PATTERN = "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: a tenant, the subject (`sub`) that acts for it, where the token names one, and what it may do."""

    tenant: str
    subject: str | None
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Setting:
    """The switch of one tenant: is an external OMS enabled, and how many changes led here."""

    enabled: bool
    version: int


NEVER_SET = Setting(enabled=False, version=0)


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a change: the token's subject, where it names one, and the request that it came with."""

    subject: str | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made: the setting that it led to, when by the store's clock, and whose it was."""

    setting: Setting
    changed_at: datetime
    author: Author


@dataclass(frozen=True, slots=True)
class History:
    """Changes of one tenant, newest first."""

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a feature flag is for one tenant."""

    key: str
    setting: Setting


@dataclass(frozen=True, slots=True)
class Evaluations:
    """What all feature flags are for one tenant; they change with `version` and never else."""

    flags: Sequence[Evaluation]
    version: int


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """What a listener is told: a change, or what stands, where `is_reset` in the place of changes that are not known.

    No change at all is the setting that was never set.
    """

    change: Change | None
    is_reset: bool = False


def version_of(change: Change | None) -> int:
    """The version that `change` led to; 0 before the first."""
    return NEVER_SET.version if change is None else change.setting.version


# The versions that a change is meant for; None is any.
Expected = frozenset[int] | None


def is_tenant_name(value: object) -> bool:
    """Whether `value` is 1 to 63 of `a-z 0-9 - _`, beginning and ending with a letter or digit."""
    return isinstance(value, str) and re.fullmatch(TENANT_PATTERN, value, re.ASCII) is not None
