"""What the service remembers.

redis_store     keys, transactions
stored_form     a change as JSON, read strictly
topology        what the store consists of, which is one of
connections     one server
sentinel        a primary that is followed
cluster         many nodes
cluster_pubsub  what the nodes of a cluster announce
address         where it is
read_batching   reads that share a round trip
pipeline        one round trip
instrumented    a store whose operations are counted
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.model import Author, Change, Expected, Setting


class Store(Protocol):
    """One setting per tenant, and the changes that led to it. Each operation ends within a limit of time of its own."""

    async def current(self, tenant: str) -> Setting:
        """The setting as it stands; version 0 and not enabled where it was never set. Raises StoreError."""

    async def change(self, tenant: str, enabled: bool, author: Author, expected: Expected = None) -> Setting:
        """The setting that stands once `enabled` is stored: one version on, or the same where nothing changes.

        Raises ConcurrentUpdate where another writer changed the setting meanwhile, or where the version that stands is
        not among those `expected`: then this change is not stored. Raises StoreError where the store failed, and then
        nothing was stored, but for its kind OutcomeUnknown, where the change may have been stored.
        """

    async def history(self, tenant: str, limit: int, before: int | None = None) -> list[Change]:
        """The newest changes, `limit` of them at the most, newest first; only versions below `before`, if given.

        As many changes are kept as the store was made for. Whatever `before` is, the cost is the same.
        Raises StoreError.
        """

    def announcements(self) -> AbstractAsyncContextManager[AsyncIterator[str | None]]:
        """The tenants whose setting is changed, each as soon as a change of it is stored, for as long as this is open.

        A tenant may be named more often than its setting is changed, never less; None stands for any tenant. Raises
        StoreError where the store does not announce changes, and, while it is iterated over, once one may have been
        lost.
        """

    async def ping(self) -> None:
        """Returns where the store answers. Raises StoreError where it does not."""

    async def close(self) -> None:
        """Lets go of the store's connections."""
