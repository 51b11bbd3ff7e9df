"""Values that the service sends: settings, changes, and the messages of an event stream."""

from dataclasses import dataclass

from external_oms_config.errors import OmsConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting of one tenant. Version 0 means that it was never set.

    `request_id` is the ID of the request that read or set it. It is None in a local copy. Here and below, `tenant` is
    None if the service did not send it.
    """

    enabled: bool
    version: int
    tenant: str | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A change, or the setting that was never set as version 0.

    `changed_at` is RFC 3339. Events have no `request_id`.
    """

    version: int
    enabled: bool
    changed_at: str | None = None
    changed_by: str | None = None
    reason: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Changes of a tenant, newest first."""

    tenant: str | None
    changes: list[ChangeRecord]


@dataclass(frozen=True, slots=True)
class Event:
    """The current setting or a change. If `is_reset` is true, changes before this one may be missing."""

    tenant: str | None
    change: ChangeRecord
    is_reset: bool
    id: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life on a connection that has had an event: the last event is still the newest."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """There is no connection, because of `error`. The next attempt begins in `pause` seconds."""

    error: OmsConfigError
    pause: float


Message = Event | Heartbeat | Disconnected
