"""Builds the store from the settings, for the web process and the command."""

from app.settings import Settings
from app.store.redis_store import RedisStore
from app.store.topology import connect


def create_store(settings: Settings) -> RedisStore:
    """Return the store at `REDIS_URL`. It connects when it is first used. The caller must close it."""
    topology = connect(settings.redis_address, settings.redis_sentinel_quorum)
    return RedisStore(topology, settings.redis_timeout, settings.history_length, settings.redis_min_replicas)
