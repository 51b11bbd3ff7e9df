"""The verb `history`."""

import asyncio
from dataclasses import asdict

from app.cli.client import open_client
from app.cli.output import note, of_tenant, print_result, row, wants_json


def history(*, limit: int, before: int | None) -> None:
    """Print past changes, newest first."""
    asyncio.run(_history(limit, before))


async def _history(limit: int, before: int | None) -> None:
    async with open_client() as client:
        page = await client.history(limit=limit, before=before)
    changes = page.changes
    if not wants_json():
        note(f"{'changes' if changes else 'no changes'}{of_tenant(page.tenant)}")
    width = max((len(str(change.version)) for change in changes), default=1)
    document = {"tenant": page.tenant, "changes": [asdict(change) for change in changes]}
    print_result(document, *(row(change, width) for change in changes))
    if not wants_json() and len(changes) == limit and changes[-1].version > 1:
        note(f"for older changes: oms-config history --before {changes[-1].version}")
