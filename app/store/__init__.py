"""The store: settings and their history in Redis.

redis_store         keys, transactions
tenant_scan         lists all tenants, for operators
stored_form         a change as JSON, decoded strictly
audit               logs each change
topology            connects to one server, to a primary behind sentinels, or to a cluster
connections         a pool of connections to one Redis server
sentinel            a primary that sentinels name
poller              polls sentinels or nodes at an interval
cluster             the nodes of a cluster
cluster_pubsub      one subscription per cluster node, merged
slot_map            the node that has each slot of a cluster
redis_url           parses REDIS_URL
read_batching       joins concurrent reads into one round trip
pipeline            several commands in one round trip
observed_store      observes the operations of a store, for the two below
instrumented_store  counts and times the operations of a store
traced_store        OpenTelemetry's spans for the operations of a store
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.model import Author, Change, Expected, Setting


class Store(Protocol):
    """One setting per tenant and its history. Each operation ends within a time limit that the store was given."""

    async def current(self, tenant: str) -> Setting:
        """Return the current setting. If it was never set, it is disabled and its version is 0. Raises StoreError."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """Set `enabled` and return the new current setting.

        The version rises by one, or stays if `enabled` is already the current value. Each change is logged once, also
        if its outcome is unknown: see `app.store.audit`.

        Raises ConcurrentUpdate if another writer changed the setting in between, or if `expected` is given and does
        not contain the current version. Raises StoreError if the store failed. Nothing was stored then, except after
        the subclass OutcomeUnknown: the change may have been stored.
        """

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """Return at most `limit` changes, newest first, and only versions below `before` if it is given.

        The store keeps a fixed number of changes per tenant. The cost does not depend on `before`. Raises StoreError.
        """

    def announcements(self) -> AbstractAsyncContextManager[AsyncIterator[str | None]]:
        """Subscribe to changes, and yield the tenant's name as soon as a change is stored.

        One change may yield the name more than once, but never zero times. None means that any tenant may have
        changed. Raises StoreError if the subscription fails. Iteration raises StoreError once a change may have been
        missed.
        """

    async def ping(self) -> None:
        """Return if the store answers reads. Raises StoreError if it does not."""

    async def close(self) -> None:
        """Close the store's connections."""
