"""A change as JSON fields, for the history and the events."""

from datetime import datetime

from app.model import NEVER_SET, Change


def change_fields(change: Change | None) -> dict[str, object]:
    """Return the fields of `change`, or those of a setting that was never set if it is None."""
    if change is None:
        fields = dict.fromkeys(("changed_at", "changed_by", "reason"))
        return {"version": NEVER_SET.version, "enabled": NEVER_SET.enabled, **fields}
    return {
        "version": change.setting.version,
        "enabled": change.setting.enabled,
        "changed_at": _rfc3339(change.changed_at),
        "changed_by": change.author.subject,
        "reason": change.author.reason,
    }


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
