"""The verb `get`."""

import asyncio

from app.cli.client import open_client
from app.cli.output import of_tenant, print_result, value


def get() -> None:
    """Print the current setting."""
    asyncio.run(_get())


async def _get() -> None:
    async with open_client() as client:
        current = await client.get()
    never = ", never set" if current.version == 0 else ""
    print_result(
        {"tenant": current.tenant, "enabled": current.enabled, "version": current.version},
        f"{value(current.enabled)} (version {current.version}{never}){of_tenant(current.tenant)}",
    )
