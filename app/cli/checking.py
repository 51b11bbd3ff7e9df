"""The verb check."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, NoReturn

import click

from app.cli.ending import STATUSES
from app.errors import StoreError
from app.release import Finding, findings
from app.settings import BadSettings, Settings
from app.storage import store_of
from app.store.inspection import Facts, obstacle

REFUSED: Final = 1

_COLOURS: Final = {"error": "red", "warning": "yellow", "ok": "green"}


def check(*, as_json: bool) -> NoReturn:
    """Prints what the store would lose, and ends the process with what that means for a release."""
    facts: Sequence[Facts] = ()
    place = None
    try:
        settings = Settings.read(os.environ)
        place = settings.redis.shown
        facts = asyncio.run(_inspect(settings))
    except BadSettings as error:
        found, status = [Finding("error", "bad_settings", str(error))], STATUSES["usage"]
    except StoreError as error:
        found, status = [Finding("error", "store", f"the store cannot be used: {obstacle(error)}")], STATUSES["failed"]
    else:
        found = findings(facts, settings.redis, tls_verify=settings.redis_tls_verify)
        status = REFUSED if any(finding.level == "error" for finding in found) else 0
    print_ = _print_json if as_json else _print_lines
    print_(found, facts, place, ok=status == 0)
    raise SystemExit(status)


async def _inspect(settings: Settings) -> Sequence[Facts]:
    store = store_of(settings)
    try:
        await store.rehearse()
        return await store.facts()
    finally:
        await store.close()


def _print_json(found: Sequence[Finding], facts: Sequence[Facts], place: str | None, *, ok: bool) -> None:
    store: dict[str, Any] = {"address": place, "servers": [asdict(each) for each in facts]}
    click.echo(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in found], "store": store}))


def _print_lines(found: Sequence[Finding], facts: Sequence[Facts], place: str | None, *, ok: bool) -> None:
    if facts:
        names = {each.product or f"Redis {each.version or 'of unknown version'}" for each in facts}
        _print_line("ok", f"{', '.join(sorted(names))} at {place}: a change was written, announced and taken away")
    for finding in found:
        _print_line(finding.level, finding.message)
    if ok:
        _print_line("ok", "the release may go on")


def _print_line(level: str, message: str) -> None:
    click.echo(f"{click.style(level.ljust(7), fg=_COLOURS[level])} {message}", err=level == "error")
