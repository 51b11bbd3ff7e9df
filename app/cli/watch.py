"""The verb watch."""

import asyncio
import json
import os
import random
import select
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict

import click

from app.cli.client import ApiClient, StreamMessage
from app.cli.exit import CommandError, end_at_once_on_interrupt, note
from app.cli.output import row

# In seconds, before a new connection: at first, unless the service asks for another, and the bounds of what it may ask.
FIRST_WAIT, SHORTEST_WAIT, LONGEST_WAIT = 0.5, 0.1, 10.0


def watch(*, as_json: bool) -> None:
    """Prints what stands and each change after it, until Ctrl-C or a failure that another connection does not mend."""
    end_at_once_on_interrupt()
    asyncio.run(_watch(as_json=as_json))


async def _watch(*, as_json: bool) -> None:
    async with ApiClient.of(os.environ) as service, aclosing(_followed(service, as_json=as_json)) as events:
        async for event in events:
            _print_event(event, as_json=as_json)


async def _followed(service: ApiClient, *, as_json: bool) -> AsyncGenerator[StreamMessage]:
    """What the stream says, over as many connections as it takes. The first has to succeed: it may be misdirected."""
    last: int | None = None
    first = wait = FIRST_WAIT
    heard = interrupted = False
    while True:
        problem = "the stream ended"
        try:
            async with aclosing(service.events(last)) as events:
                async for event in events:
                    if interrupted:
                        note("connected again", as_json=as_json)
                    heard, interrupted = True, False
                    asked = first if event.wait is None else event.wait
                    first = wait = max(SHORTEST_WAIT, min(asked, LONGEST_WAIT))
                    last = last if event.change is None else event.change.version
                    yield event
        except CommandError as failure:
            if not (failure.passing and heard):
                raise
            problem = failure.message
        interrupted = True
        # Less a random part, so that not all who were cut off come back at once.
        pause = wait * random.SystemRandom().uniform(0.5, 1)
        note(f"{problem}; connecting again in {pause:.1f} s", as_json=as_json)
        await asyncio.sleep(pause)
        wait = min(2 * max(wait, FIRST_WAIT), LONGEST_WAIT)


def _print_event(event: StreamMessage, *, as_json: bool) -> None:
    if event.change is None:
        _look_for_the_reader()
        return
    if as_json:
        told = {name: each for name, each in asdict(event.change).items() if name != "request_id"}
        click.echo(json.dumps({"event": "reset" if event.is_reset else "change", **told}))
        return
    if event.is_reset:
        note("the history does not reach back so far: changes may be missing; now stands:", as_json=False)
    click.echo(row(event.change))


def _look_for_the_reader() -> None:
    """Raises BrokenPipeError where nobody reads any more: as in `watch | head -1`, with no other change to come."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(what & select.POLLERR for _, what in poll.poll(0)):
        raise BrokenPipeError
