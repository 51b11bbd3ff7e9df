"""How a change is written down for clients."""

from datetime import datetime

from app.model import Change


def change_fields(change: Change) -> dict[str, object]:
    """What the history and the events say of a change."""
    return {
        "version": change.setting.version,
        "enabled": change.setting.enabled,
        "changed_at": _rfc3339(change.changed_at),
        "changed_by": change.author.subject,
    }


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
