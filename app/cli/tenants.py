"""The verb `tenants`."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from app.cli.exit_status import STATUSES, CommandError, end_on_interrupt
from app.cli.output import printable, value, wants_json
from app.errors import StoreError
from app.model import Change
from app.preflight.inspection import failure_reason
from app.settings import Settings, SettingsError
from app.store.tenant_scan import TenantPage
from app.store_factory import create_store
from app.web.change_json import change_fields

_INCOMPLETE: Final = "the list is not complete"
# Characters of a tenant name, and those with a meaning in a pattern of Redis.
_GLOB: Final = re.compile(r"(?:[a-z0-9_*?-]|\[\^?[a-z0-9_-]+\])+")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def tenants(*, enabled: bool | None, changed_since: str | None, match: str) -> None:
    """Print the tenants whose setting has the value `enabled` and was changed since then. None accepts all."""
    since = None if changed_since is None else _moment(changed_since)
    if not _GLOB.fullmatch(match):
        text = "--match must consist of a-z 0-9 - _, as in tenant names, and of * ? [...] and [^...]"
        raise CommandError("usage", text)
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        raise CommandError("usage", str(error)) from error
    end_on_interrupt(_INCOMPLETE)
    asyncio.run(_tenants(settings, _Listing(enabled, since), match))


async def _tenants(settings: Settings, listing: "_Listing", match: str) -> None:
    store = create_store(settings)
    try:
        async with contextlib.aclosing(store.tenants(match)) as pages:
            async for page in pages:
                listing.print_page(page)
    except StoreError as error:
        text = f"{_INCOMPLETE}: the store cannot be used: {failure_reason(error)}"
        raise CommandError("failed", printable(text)) from error
    finally:
        listing.clear_progress()
        await store.close()
    listing.print_total()


class _Listing:
    """Prints pages of tenants. It keeps only numbers."""

    def __init__(self, enabled: bool | None, since: datetime | None) -> None:
        self._enabled = enabled
        self._since = since
        self._printed: Counter[bool] = Counter()
        self._damaged = 0
        self._name_width = self._version_width = 1
        self._has_progress = sys.stderr is not None and sys.stderr.isatty()

    def print_page(self, page: TenantPage) -> None:
        """Print the tenants of a page that are to be listed, and the progress."""
        listed = {tenant: change for tenant, change in page.changes.items() if self._is_listed(change)}
        if listed or page.damaged:
            self.clear_progress()
        self._printed.update(change.setting.enabled for change in listed.values())
        if listed:
            click.echo("\n".join(self._lines(listed)))
        for fault in page.damaged:
            CommandError("failed", printable(fault)).show()
        self._damaged += len(page.damaged)
        if self._has_progress and page.progress is not None:
            click.echo(f"\r{page.progress:4.0%} ", nl=False, err=True)

    def clear_progress(self) -> None:
        """Remove the progress from the terminal."""
        if self._has_progress:
            click.echo("\r     \r", nl=False, err=True)

    def print_total(self) -> None:
        """Print the total on stderr. Exit with a status that reports damaged values, if there are any."""
        total = {"tenants": self._printed.total(), "on": self._printed[True], "off": self._printed[False]}
        damaged = f", damaged values: {self._damaged}" if self._damaged else ""
        text = "tenants: {tenants} ({on} on, {off} off)".format_map(total) + damaged
        click.echo(json.dumps(total | {"damaged": self._damaged}) if wants_json() else text, err=True)
        if self._damaged:
            raise SystemExit(STATUSES["failed"])

    def _is_listed(self, change: Change) -> bool:
        is_recent = self._since is None or change.changed_at >= self._since
        return is_recent and self._enabled in {None, change.setting.enabled}

    def _lines(self, changes: dict[str, Change]) -> list[str]:
        if wants_json():
            return [json.dumps({"tenant": tenant, **change_fields(change)}) for tenant, change in changes.items()]
        # Wide enough for all pages so far: the later ones are not known yet.
        self._name_width = max(self._name_width, *map(len, changes))
        versions = (len(str(change.setting.version)) for change in changes.values())
        self._version_width = max(self._version_width, *versions)
        return [self._row(tenant, change) for tenant, change in changes.items()]

    def _row(self, tenant: str, change: Change) -> str:
        enabled = change.setting.enabled
        padded = f"{value(enabled)}{'  ' if enabled else ' '}"
        shown = f"{tenant:<{self._name_width}}  {padded} {change.setting.version:>{self._version_width}}"
        reason = f'  "{printable(change.author.reason)}"' if change.author.reason else ""
        return f"{shown}  {change_fields(change)['changed_at']}  {printable(change.author.subject or '-')}{reason}"


def _moment(text: str) -> datetime:
    """Return the time that `--changed-since` means."""
    if duration := re.fullmatch(r"(\d{1,5})([smhd])", text, re.ASCII):
        return datetime.now(UTC) - timedelta(**{_UNITS[duration[2]]: int(duration[1])})
    is_date = re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII)
    moment = None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(f"{text}T00:00Z" if is_date else text)
    if moment is None or moment.tzinfo is None:
        text = (
            "--changed-since must be a time with a zone (2026-11-26T14:00:00Z), a date in UTC, or such as 90s, 2h, 7d"
        )
        raise CommandError("usage", text)
    return moment
