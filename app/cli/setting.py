"""The verbs get, set and history."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict

import click

from app.cli.client import ApiClient, CurrentSetting
from app.cli.exit import CommandError, end_at_once_on_interrupt, note
from app.cli.output import ChangeRecord, described, row, value

_NEVER_SET = ChangeRecord(version=0, enabled=False)
_UNKNOWN = "whether the change was stored is not known: see `oms-config history`"


def get(*, as_json: bool) -> None:
    """Prints what stands."""
    end_at_once_on_interrupt()
    asyncio.run(_get(as_json=as_json))


def set_(*, enabled: bool, if_version: int | None, as_json: bool) -> None:
    """Sets it, and prints what that has changed."""
    end_at_once_on_interrupt(f"interrupted: {_UNKNOWN}")
    asyncio.run(_set(enabled=enabled, if_version=if_version, as_json=as_json))


def history(*, limit: int, before: int | None, as_json: bool) -> None:
    """Prints who changed it, newest first."""
    end_at_once_on_interrupt()
    asyncio.run(_history(limit, before, as_json=as_json))


async def _get(*, as_json: bool) -> None:
    async with ApiClient.of(os.environ) as service:
        current = await service.get()
    if as_json:
        click.echo(json.dumps({"enabled": current.enabled, "version": current.version}))
        return
    never = ", never set" if current.version == 0 else ""
    click.echo(f"{value(current.enabled)} (version {current.version}{never})")


async def _set(*, enabled: bool, if_version: int | None, as_json: bool) -> None:
    async with ApiClient.of(os.environ) as service:
        try:
            current = await service.set(enabled=enabled, if_version=if_version)
        except CommandError as failure:
            raise await _explained(service, failure, if_version) from failure
        try:
            newest = await service.history(limit=2, before=current.version + 1)
        except CommandError as failure:
            note(f"it is set; what it was before cannot be told: {failure.message}", as_json=as_json)
            newest = []
    _print_set(current, *_compared(current, newest), as_json=as_json)


async def _explained(service: ApiClient, failure: CommandError, if_version: int | None) -> CommandError:
    """The failure of a write, with what the operator has to know before trying again."""
    if failure.unknown:
        return CommandError(failure.kind, f"{failure.message}; {_UNKNOWN}", request_id=failure.request_id)
    if failure.kind != "conflict":
        return failure
    stands = "another version stands" if failure.version is None else f"version {failure.version} stands"
    try:
        if failure.version:
            (change,) = await service.history(limit=1, before=failure.version + 1)
            stands += f" ({described(change)})"
    except (CommandError, ValueError):
        pass  # that it was refused is what counts
    why = "" if if_version is None else f", not {if_version}"
    text = f"conflict: {stands}{why}; nothing was changed"
    return CommandError("conflict", text, request_id=failure.request_id, version=failure.version)


def _compared(current: CurrentSetting, newest: Sequence[ChangeRecord]) -> tuple[bool | None, ChangeRecord | None]:
    """Whether this very request has changed the setting, and what stood before it; None where nobody can tell.

    The history was written in the change's own transaction, so no other writer can have come between.
    """
    if current.version == 0:
        return False, _NEVER_SET
    if not newest or newest[0].version != current.version:
        return None, None
    if newest[0].request_id != current.request_id:
        return False, newest[0]
    if current.version == 1:
        return True, _NEVER_SET
    # The history may reach no further back, but each change makes the other value.
    older = [change for change in newest[1:] if change.version == current.version - 1]
    return True, next(iter(older), ChangeRecord(current.version - 1, not current.enabled))


def _print_set(current: CurrentSetting, changed: bool | None, previous: ChangeRecord | None, *, as_json: bool) -> None:
    if as_json:
        before = previous and {name: told for name, told in asdict(previous).items() if name != "request_id"}
        own = {"enabled": current.enabled, "version": current.version, "changed": changed, "previous": before}
        click.echo(json.dumps(own))
    elif previous is None:
        click.echo(f"{value(current.enabled)} (version {current.version})")
    elif changed:
        click.echo(f"{value(previous.enabled)} -> {value(current.enabled)} (version {current.version})")
        click.echo(f"before: {described(previous)} (version {previous.version})")
    else:
        click.echo(f"{value(current.enabled)} already (version {current.version}); nothing was changed")
        click.echo(f"before: {described(previous)}")


async def _history(limit: int, before: int | None, *, as_json: bool) -> None:
    async with ApiClient.of(os.environ) as service:
        changes = await service.history(limit=limit, before=before)
    if as_json:
        click.echo(json.dumps({"changes": [asdict(change) for change in changes]}))
        return
    width = max((len(str(change.version)) for change in changes), default=1)
    for change in changes:
        click.echo(row(change, width))
    if not changes:
        note("no changes", as_json=False)
    elif len(changes) == limit and changes[-1].version > 1:
        note(f"older ones: oms-config history --before {changes[-1].version}", as_json=False)
