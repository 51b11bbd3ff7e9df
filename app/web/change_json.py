"""How a change is written down for clients."""

from datetime import datetime

from app.model import NEVER_SET, Change


def change_fields(change: Change | None) -> dict[str, object]:
    """What the history and the events say of a change; of None, what stands before the first."""
    if change is None:
        return {"version": NEVER_SET.version, "enabled": NEVER_SET.enabled, "changed_at": None, "changed_by": None}
    return {
        "version": change.setting.version,
        "enabled": change.setting.enabled,
        "changed_at": _rfc3339(change.changed_at),
        "changed_by": change.author.subject,
    }


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
