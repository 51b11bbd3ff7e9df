"""The verb `history`."""

import asyncio
from dataclasses import asdict

from app.cli.client import open_client
from app.cli.output import note, print_result, row, wants_json


def history(*, limit: int, before: int | None) -> None:
    """Print past changes, newest first."""
    asyncio.run(_history(limit, before))


async def _history(limit: int, before: int | None) -> None:
    async with open_client() as client:
        changes = await client.history(limit=limit, before=before)
    width = max((len(str(change.version)) for change in changes), default=1)
    print_result({"changes": [asdict(change) for change in changes]}, *(row(change, width) for change in changes))
    if wants_json():
        return
    if not changes:
        note("no changes")
    elif len(changes) == limit and changes[-1].version > 1:
        note(f"for older changes: oms-config history --before {changes[-1].version}")
