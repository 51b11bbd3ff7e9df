"""The verb `set`."""

import asyncio
import shlex
from dataclasses import asdict
from typing import Final

from app.cli.client import open_client
from app.cli.exit_status import CommandError, end_on_interrupt
from app.cli.output import note, of_tenant, print_result, printable, row, value
from external_oms_config import AsyncClient, ChangeRecord, OmsConfigError, Setting, UnknownOutcome

_NEVER_SET: Final = ChangeRecord(version=0, enabled=False)
_CHECK: Final = "check with `oms-config history`"


def set_(*, enabled: bool, tenant: str | None, if_version: int | None, reason: str | None) -> None:
    """Set the setting, and print the new setting, the previous change, and the command that undoes this one.

    If the token is of another tenant than `tenant`, change nothing. None accepts any tenant.
    """
    asyncio.run(_set(enabled, tenant, if_version, reason))


async def _set(enabled: bool, tenant: str | None, if_version: int | None, reason: str | None) -> None:
    async with open_client() as client:
        if tenant is not None:
            await _check_tenant(client, tenant)
        end_on_interrupt(f"the change may or may not have been stored: {_CHECK}")
        try:
            current = await client.set(enabled, if_version=if_version, reason=reason)
        except UnknownOutcome as error:
            raise CommandError("failed", f"{error}: {_CHECK}", request_id=error.request_id) from error
        changes = await _changes_up_to(client, current.version)
    changed = changes[0].request_id == current.request_id if changes else None
    previous = next(iter(changes[1:] if changed else changes), None)
    try:
        _print(current, changed, previous)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the setting was set") from error


async def _check_tenant(client: AsyncClient, expected: str) -> None:
    """Raise CommandError if the setting that `client` can change is not that of the tenant `expected`."""
    current = await client.get()
    if current.tenant != expected:
        actual = of_tenant(current.tenant) or " of an unknown tenant: the service does not name it"
        text = f"nothing was changed: expected a token of tenant {printable(expected)}, but it is a token{actual}"
        raise CommandError("usage", text, request_id=current.request_id)


async def _changes_up_to(client: AsyncClient, version: int) -> list[ChangeRecord]:
    """Return the change that made `version` and the change before it, if they are in the history.

    Each change and its history entry are written in one transaction, so no entry is missing between the two.
    """
    try:
        changes = (await client.history(limit=2, before=version + 1)).changes
    except OmsConfigError as error:
        note(f"the setting was set, but the previous change cannot be read: {error}")
        return []
    return changes if version > 1 else [*changes, _NEVER_SET]


def _print(current: Setting, changed: bool | None, previous: ChangeRecord | None) -> None:
    shown = f"{value(current.enabled)} (version {current.version}){of_tenant(current.tenant)}"
    if changed:
        shown = f"{value(not current.enabled)} -> {shown}"
    elif changed is False:
        shown = f"{shown}: already the current value, nothing was changed"
    old = "off" if current.enabled else "on"
    tied = "" if current.tenant is None else f" --tenant {shlex.quote(printable(current.tenant))}"
    undo = f"oms-config set {old}{tied} --if-version {current.version}" if changed else None
    before = previous and {name: each for name, each in asdict(previous).items() if name != "request_id"}
    print_result(
        {
            "tenant": current.tenant,
            "enabled": current.enabled,
            "version": current.version,
            "changed": changed,
            "previous": before,
            "undo": undo,
        },
        shown,
        *([f"before: {row(previous)}"] if previous else []),
        *([f"undo:   {undo}"] if undo else []),
    )
