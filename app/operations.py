"""What the service does: one coroutine for each operationId of the documents, readable as the rule it keeps.

An operation's arguments say all it needs. The first is the store; the others are filled by name: `principal`,
`request_id`, `expected` (the versions that the request is meant for, or None for any), parameters that the document
declares, and properties that it requires in the body.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from app.model import Author, Expected, History, Principal, Setting
from app.store import Store

Operation = Callable[..., Coroutine[Any, Any, object]]


async def get_external_oms(store: Store, principal: Principal) -> Setting:
    """The tenant's setting as it stands."""
    return await store.current(principal.tenant)


async def set_external_oms(
    store: Store, principal: Principal, request_id: str, enabled: bool, expected: Expected
) -> Setting:
    """The tenant's setting with `enabled` as asked for.

    ConcurrentUpdate where another writer was there meanwhile, or the version that stands is none of those expected.
    """
    return await store.change(principal.tenant, enabled, Author(principal.subject, request_id), expected)


async def get_external_oms_history(store: Store, principal: Principal, limit: int, before: int | None) -> History:
    """The tenant's newest changes, `limit` of them at the most; only versions below `before`, if given."""
    return History(await store.history(principal.tenant, limit, before))


# Those that need the scope for writing; all others need the one for reading.
WRITES = frozenset({"set-external-oms-configuration"})

OPERATIONS: Mapping[str, Operation] = {
    "get-oms-configuration": get_external_oms,
    "set-external-oms-configuration": set_external_oms,
    "get-oms-configuration-history": get_external_oms_history,
}
