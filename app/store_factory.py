"""Which store the settings name: the one place where the web process and the commands get it."""

from functools import partial

from app.settings import Settings
from app.store.inspection import ServerFacts, UnreachableServer, inspect
from app.store.redis_store import RedisStore
from app.store.topology import connect, connections_for


def create_store(settings: Settings) -> RedisStore:
    """The store that `settings` name; it is not connected to before it is used."""
    topology = connect(settings.redis, tls_verify=settings.redis_tls_verify)
    return RedisStore(topology, settings.redis_timeout, settings.history_length, settings.redis_min_replicas)


async def inspect_store(settings: Settings) -> list[ServerFacts | UnreachableServer]:
    """What each server of that store says of itself. Raises StoreError where nobody names the servers."""
    topology = connect(settings.redis, tls_verify=settings.redis_tls_verify)
    at = partial(connections_for, settings.redis, tls_verify=settings.redis_tls_verify)
    try:
        return await inspect(topology, at, settings.redis_timeout)
    finally:
        await topology.close()
