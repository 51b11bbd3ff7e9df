"""The verb `check`."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, NoReturn

import click

from app.cli.exit_status import STATUSES
from app.cli.output import print_result, printable, wants_json
from app.errors import StoreError
from app.preflight.findings import Finding, findings, sentinel_findings, unusable
from app.preflight.inspection import (
    ServerFacts,
    UnreachableServer,
    failure_reason,
    inspect_sentinels,
    inspect_store,
    tls_mismatch,
)
from app.preflight.provider import key_findings
from app.settings import Settings, SettingsError, unknown_variables
from app.store_factory import create_store

_ERROR_STATUSES: Final = {"bad_settings": STATUSES["usage"], "store": STATUSES["failed"]}
_STOPPED: Final = 1  # for an error with any other code

_COLOURS: Final = {"error": "red", "warning": "yellow", "ok": "green"}


def check() -> NoReturn:
    """Run the preflight check, print its findings, and exit with the status that lets a release proceed or stops it."""
    servers: list[ServerFacts | UnreachableServer] = []
    others: list[Finding] = []
    address = None
    try:
        settings = Settings.read(os.environ)
        address = settings.redis.shown
        others = asyncio.run(key_findings(settings))
        others += sentinel_findings(asyncio.run(inspect_sentinels(settings)))
        servers = asyncio.run(inspect_store(settings))
        found = findings(servers, settings.redis_address, settings.redis_min_replicas) + others
        if all(finding.code != "store" for finding in found):
            asyncio.run(_probe_write(settings))
    except SettingsError as error:
        found = [Finding("error", "bad_settings", str(error))]
    except StoreError as error:
        found, servers = [unusable(failure_reason(error), settings.redis), *others], []
    if any(each.code == "store" for each in found) and (mistake := asyncio.run(tls_mismatch(settings))):
        found, servers = [unusable(mistake, settings.redis), *others], []
    found += [
        Finding("warning", "unknown_variable", f"{name} is not a setting" + (f"; {known} is" if known else ""))
        for name, known in unknown_variables(os.environ).items()
    ]
    status = max((_ERROR_STATUSES.get(each.code, _STOPPED) for each in found if each.level == "error"), default=0)
    facts = [asdict(server) for server in servers if isinstance(server, ServerFacts)]
    if wants_json():
        store = {"address": address, "servers": facts}
        print_result({"ok": status == 0, "findings": [asdict(finding) for finding in found], "store": store})
    else:
        _print_lines(found, address, status)
    raise SystemExit(status)


async def _probe_write(settings: Settings) -> None:
    store = create_store(settings)
    try:
        await store.probe_write()
    finally:
        await store.close()


def _print_lines(found: Sequence[Finding], address: str | None, status: int) -> None:
    if status in {0, _STOPPED}:
        _print_line("ok", f"the store at {address} works: a test change was written, announced and removed")
    for finding in found:
        _print_line(finding.level, finding.message)
    if status == 0 and all(finding.seen for finding in found):
        _print_line("ok", "the release can proceed")
    elif status == 0:
        _print_line("warning", "the release can proceed, but not everything was checked")


def _print_line(level: str, message: str) -> None:
    click.echo(f"{click.style(level.ljust(7), fg=_COLOURS[level])} {printable(message)}", err=level == "error")
