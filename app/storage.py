"""Which store the settings name: the one place where the web process and the commands get it."""

from app.settings import Settings
from app.store.redis_store import RedisStore
from app.store.topology import connect


def store_of(settings: Settings) -> RedisStore:
    """The store that `settings` name; it is not connected to before it is used."""
    topology = connect(settings.redis, tls_verify=settings.redis_tls_verify)
    return RedisStore(topology, settings.redis_timeout, settings.history_length, settings.redis_min_replicas)
