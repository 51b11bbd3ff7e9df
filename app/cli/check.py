"""The verb check."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, NoReturn

import click

from app.cli.exit import STATUSES
from app.errors import StoreError
from app.preflight.findings import Finding, findings
from app.settings import Settings, SettingsError
from app.store.inspection import ServerFacts, UnreachableServer, obstacle
from app.store_factory import create_store, inspect_store

REFUSED: Final = 1

_COLOURS: Final = {"error": "red", "warning": "yellow", "ok": "green"}


def check(*, as_json: bool) -> NoReturn:
    """Prints what the store would lose, and ends the process with what that means for a release."""
    servers: Sequence[ServerFacts | UnreachableServer] = ()
    place = None
    try:
        settings = Settings.read(os.environ)
        place = settings.redis.shown
        servers = asyncio.run(_try(settings))
    except SettingsError as error:
        found, status = [Finding("error", "bad_settings", str(error))], STATUSES["usage"]
    except StoreError as error:
        found, status = [Finding("error", "store", f"the store cannot be used: {obstacle(error)}")], STATUSES["failed"]
    else:
        found = findings(servers, settings.redis, tls_verify=settings.redis_tls_verify)
        status = REFUSED if any(finding.level == "error" for finding in found) else 0
        if _is_unusable(servers):
            status = STATUSES["failed"]
    seen = [each for each in servers if isinstance(each, ServerFacts)]
    if as_json:
        _print_json(found, seen, place, ok=status == 0)
    else:
        _print_lines(found, seen if status in {0, REFUSED} else [], place, ok=status == 0)
    raise SystemExit(status)


async def _try(settings: Settings) -> Sequence[ServerFacts | UnreachableServer]:
    servers = await inspect_store(settings)
    if not _is_unusable(servers):
        store = create_store(settings)
        try:
            await store.probe_write()
        finally:
            await store.close()
    return servers


def _is_unusable(servers: Sequence[ServerFacts | UnreachableServer]) -> bool:
    return any(isinstance(each, UnreachableServer) and each.role == "primary" for each in servers)


def _print_json(found: Sequence[Finding], facts: Sequence[ServerFacts], place: str | None, *, ok: bool) -> None:
    store: dict[str, Any] = {"address": place, "servers": [asdict(each) for each in facts]}
    click.echo(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in found], "store": store}))


def _print_lines(found: Sequence[Finding], facts: Sequence[ServerFacts], place: str | None, *, ok: bool) -> None:
    if facts:
        names = {each.product or f"Redis {each.version}" for each in facts if each.product or each.version}
        what = ", ".join(sorted(names)) or "the store"
        _print_line("ok", f"{what} at {place}: a change was written, announced and taken away")
    for finding in found:
        _print_line(finding.level, finding.message)
    if ok and all(finding.seen for finding in found):
        _print_line("ok", "the release may go on")
    elif ok:
        _print_line("warning", "the release may go on, but not all was looked at")


def _print_line(level: str, message: str) -> None:
    click.echo(f"{click.style(level.ljust(7), fg=_COLOURS[level])} {message}", err=level == "error")
