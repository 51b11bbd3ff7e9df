"""How settings and changes look on the screen."""

from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A change as the service tells it; at version 0, which was never set, nobody made it."""

    version: int
    enabled: bool
    changed_at: str | None = None
    changed_by: str | None = None
    request_id: str | None = None


def value(enabled: bool) -> str:
    """`on` or `off`, in colour."""
    return click.style("on", fg="green") if enabled else click.style("off", fg="yellow")


def described(change: ChangeRecord) -> str:
    """A change in the middle of a sentence."""
    if change.version == 0:
        return "off, never set"
    when = f" since {printable(change.changed_at)}" if change.changed_at else ""
    by = f", by {printable(change.changed_by)}" if change.changed_by else ""
    return f"{'on' if change.enabled else 'off'}{when}{by}"


def row(change: ChangeRecord, width: int = 1) -> str:
    """A change in a line of its own: version, value, when, who and the request."""
    shown = f"{change.version:>{width}}  {value(change.enabled)}{'   ' if change.enabled else '  '}"
    if change.version == 0:
        return f"{shown}never set"
    who = printable(change.changed_by or "-")
    when = printable(change.changed_at or "-")
    request = f"  {printable(change.request_id)}" if change.request_id else ""
    return f"{shown}{when}  {who}{request}"


def printable(text: str) -> str:
    """`text` without what would command a terminal: a subject is whatever its issuer puts into a token."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
