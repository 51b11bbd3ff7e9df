"""What the service does: one coroutine for each operationId of the contract, readable as the rule it keeps.

An operation's arguments say all it needs. The first is the store; the others are filled by name, from the request's
`principal` and `request_id` and from the properties that the contract requires in the body.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from app.model import Principal, Setting
from app.store import Store

Operation = Callable[..., Coroutine[Any, Any, object]]


async def get_external_oms(store: Store, principal: Principal) -> Setting:
    """The tenant's setting as it stands."""
    return await store.current(principal.tenant)


async def set_external_oms(store: Store, principal: Principal, enabled: bool) -> Setting:
    """The tenant's setting with `enabled` as asked for; ConcurrentUpdate where another writer was there meanwhile."""
    return await store.change(principal.tenant, enabled)


# Those that need the scope for writing; all others need the one for reading.
WRITES = frozenset({"set-external-oms-configuration"})

OPERATIONS: Mapping[str, Operation] = {
    "get-oms-configuration": get_external_oms,
    "set-external-oms-configuration": set_external_oms,
}
