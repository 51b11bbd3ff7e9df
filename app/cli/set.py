"""The verb `set`."""

import asyncio
import os
import signal
from dataclasses import asdict
from typing import Final

from app.cli.client import ApiClient, open_client
from app.cli.exit_status import CommandError
from app.cli.output import ChangeRecord, note, print_result, row, value

_NEVER_SET: Final = ChangeRecord(version=0, enabled=False)
_UNKNOWN: Final = "the change may or may not have been stored: check with `oms-config history`"


def set_(*, enabled: bool, if_version: int | None) -> None:
    """Set the setting, and print the new setting and the previous change."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, _end_interrupted)
    asyncio.run(_set(enabled, if_version))


def _end_interrupted(_signal: int, _frame: object) -> None:
    os.write(2, f"\ninterrupted: {_UNKNOWN}\n".encode())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


async def _set(enabled: bool, if_version: int | None) -> None:
    async with open_client() as client:
        try:
            current = await client.set(enabled=enabled, if_version=if_version)
        except CommandError as error:
            if not error.unknown_outcome:
                raise
            raise CommandError(error.kind, f"{error.message}; {_UNKNOWN}", request_id=error.request_id) from error
        changes = await _changes_up_to(client, current.version)
    changed = changes[0].request_id == current.request_id if changes else None
    previous = next(iter(changes[1:] if changed else changes), None)
    try:
        _print(current, changed, previous)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the setting was set") from error


async def _changes_up_to(client: ApiClient, version: int) -> list[ChangeRecord]:
    """Return the change that made `version` and the change before it, if they are in the history.

    Each change and its history entry are written in one transaction, so no entry is missing between the two.
    """
    try:
        changes = await client.history(limit=2, before=version + 1)
    except CommandError as error:
        note(f"the setting was set, but the previous change cannot be read: {error.message}")
        return []
    return changes if version > 1 else [*changes, _NEVER_SET]


def _print(current: ChangeRecord, changed: bool | None, previous: ChangeRecord | None) -> None:
    shown = f"{value(current.enabled)} (version {current.version})"
    if changed:
        shown = f"{value(not current.enabled)} -> {shown}"
    elif changed is False:
        shown = f"{shown}: already the current value, nothing was changed"
    before = previous and {name: each for name, each in asdict(previous).items() if name != "request_id"}
    print_result(
        {"enabled": current.enabled, "version": current.version, "changed": changed, "previous": before},
        shown,
        *([f"before: {row(previous)}"] if previous else []),
    )
