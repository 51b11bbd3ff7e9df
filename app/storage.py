"""Which store the settings name: the one place where the web process and the commands get it."""

from app.settings import Settings
from app.store.connections import Connections
from app.store.redis_store import RedisStore


def store_of(settings: Settings) -> RedisStore:
    """The store that `settings` name; it is not connected to before it is used."""
    return RedisStore(Connections.to(settings.redis_url), settings.redis_timeout, settings.history_length)
