"""The verb `watch`."""

import asyncio
import errno
import json
import select
import sys
from contextlib import aclosing
from dataclasses import asdict

import click

from app.cli.client import open_client
from app.cli.output import note, of_tenant, row, wants_json
from external_oms_config import Disconnected, Event, Rejected


def watch() -> None:
    """Print the current setting and each change. Reconnect when the connection ends."""
    asyncio.run(_watch())


async def _watch() -> None:
    """Reconnect until the service rejects the token. End if the first connection fails: the URL may be wrong."""
    connected = reconnecting = False
    async with open_client() as client, aclosing(client.follow()) as messages:
        async for message in messages:
            if isinstance(message, Disconnected):
                if not connected or isinstance(message.error, Rejected):
                    raise message.error
                note(f"{message.error}; connecting again in {message.pause:.1f} s")
                reconnecting = True
                continue
            if reconnecting:
                note("connected again")
            elif not connected and isinstance(message, Event) and not wants_json():
                note(f"changes{of_tenant(message.tenant)}")
            connected, reconnecting = True, False
            if isinstance(message, Event):
                _print(message)
            else:
                _check_reader()


def _print(event: Event) -> None:
    if wants_json():
        shown = {name: each for name, each in asdict(event.change).items() if name != "request_id"}
        click.echo(json.dumps({"event": "reset" if event.is_reset else "change", "tenant": event.tenant, **shown}))
    else:
        if event.is_reset:
            note("changes may be missing: the store no longer has the last printed change. The current setting:")
        click.echo(row(event.change))


def _check_reader() -> None:
    """Raise BrokenPipeError if the reader of stdout is gone, as in `watch | head -1`, even before the next change."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "stdout")
