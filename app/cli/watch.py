"""The verb `watch`."""

import asyncio
import errno
import json
import random
import select
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import Final

import click

from app.cli.client import StreamMessage, open_client
from app.cli.exit_status import CommandError
from app.cli.output import note, of_tenant, row, wants_json

# Seconds before a reconnection. The wait doubles with each failed attempt.
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 10.0


def watch() -> None:
    """Print the current setting and each change. Reconnect when the connection ends."""
    asyncio.run(_watch())


async def _watch() -> None:
    """Reconnect until the service rejects the request. End if the first connection fails: the URL may be wrong."""
    last: str | None = None
    wait = _FIRST_WAIT
    connected = reconnecting = False
    async with open_client() as client:
        while True:
            problem = "the stream ended"
            try:
                async with aclosing(client.events(last)) as messages:
                    async for message in messages:
                        if reconnecting:
                            note("connected again")
                        elif message.change and last is None and not wants_json():
                            note(f"changes{of_tenant(message.tenant)}")
                        connected, reconnecting, wait = True, False, _FIRST_WAIT
                        last = message.id or last
                        _print(message)
            except CommandError as error:
                if error.kind != "failed" or not connected:
                    raise
                problem = error.message
            reconnecting = True
            # Clients that lost their connections at the same moment must not all reconnect at once.
            pause = wait * random.SystemRandom().uniform(0.5, 1)
            note(f"{problem}; connecting again in {pause:.1f} s")
            await asyncio.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)


def _print(message: StreamMessage) -> None:
    if message.change is None:
        _check_reader()
    elif wants_json():
        shown = {name: each for name, each in asdict(message.change).items() if name != "request_id"}
        click.echo(json.dumps({"event": message.event, "tenant": message.tenant, **shown}))
    else:
        if message.event == "reset":
            note("changes may be missing: the store no longer has the last printed change. The current setting:")
        click.echo(row(message.change))


def _check_reader() -> None:
    """Raise BrokenPipeError if the reader of stdout is gone, as in `watch | head -1`, even before the next change."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "stdout")
