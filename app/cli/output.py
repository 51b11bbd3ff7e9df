"""Prints results and notes, as text or as JSON."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # the help must start without the client
    from external_oms_config import ChangeRecord


def wants_json() -> bool:
    """Return True if the running verb has the option `--json`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.obj)


def print_result(document: object, *lines: str) -> None:
    """Print `document` as JSON if the verb has `--json`, otherwise print `lines`."""
    for line in [json.dumps(document)] if wants_json() else lines:
        click.echo(line)


def note(text: str) -> None:
    """Print a note on stderr. Stdout has only the result."""
    click.echo(json.dumps({"note": text}) if wants_json() else text, err=True)


def value(enabled: bool) -> str:
    """Return `on` or `off`, in colour."""
    return click.style("on", fg="green") if enabled else click.style("off", fg="yellow")


def of_tenant(tenant: str | None) -> str:
    """Return the words that name the tenant, or none if the service did not send it."""
    return "" if tenant is None else f" of tenant {printable(tenant)}"


def row(change: "ChangeRecord", width: int = 1) -> str:
    """Return a change as one line: version, value, time, author, request ID and reason."""
    shown = f"{change.version:>{width}}  {value(change.enabled)}{'   ' if change.enabled else '  '}"
    if change.version == 0:
        return f"{shown}never set"
    request = f"  {printable(change.request_id)}" if change.request_id else ""
    reason = f'  "{printable(change.reason)}"' if change.reason else ""
    return f"{shown}{printable(change.changed_at or '-')}  {printable(change.changed_by or '-')}{request}{reason}"


def printable(text: object) -> str:
    """Return `text` with escapes for unprintable characters, so that it cannot control the terminal.

    The service and the subjects of tokens can contain any text.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))
