"""The audit log: one line for each change, at every `LOG_LEVEL`."""

import logging
from typing import Final, Literal

from app.logs import AUDIT_LOGGER
from app.model import Change

_log: Final = logging.getLogger(AUDIT_LOGGER)


def log_change(tenant: str, change: Change, outcome: Literal["stored", "unknown"]) -> None:
    """Log a change of `tenant` that was stored, or whose outcome is unknown. Fields without a value are left out."""
    author = change.author
    fields = {
        "request_id": author.request_id,  # first, as the searches in docs/operating.md expect it
        "tenant": tenant,
        "enabled": change.setting.enabled,
        "version": change.setting.version,
        "outcome": outcome,
        "changed_by": author.subject,
        "reason": author.reason,
        "trace_id": author.trace_id,
    }
    _log.info("setting_changed", extra={name: value for name, value in fields.items() if value is not None})
