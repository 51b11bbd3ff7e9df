"""The operations of the OpenAPI documents: one coroutine for each operationId.

The first argument of an operation is the store or the feed. `app.web.contract.views` fills the others by name:
`principal`, `author` (of a change), `expected` (the versions that a write may replace, None for any version),
parameters that the document declares, and properties that it requires in the body. Every operation raises StoreError if
the store fails.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from app.errors import FlagNotFound
from app.feed.feed import Feed
from app.feed.subscriber import Subscriber
from app.model import Author, Evaluation, Evaluations, EventId, Expected, History, Principal, Setting
from app.store import Store

Operation = Callable[..., Coroutine[Any, Any, object]]

FLAG = "external_oms.enabled"


async def get_external_oms(store: Store, principal: Principal) -> Setting:
    """Return the tenant's current setting."""
    return await store.current(principal.tenant)


async def set_external_oms(
    store: Store, principal: Principal, author: Author, enabled: bool, expected: Expected
) -> Setting:
    """Store `enabled` for the tenant and return the current setting. Storing the current value is not a change.

    Raises ConcurrentUpdate if another writer changed the setting meanwhile, or if its version is not in `expected`.
    Raises OutcomeUnknown if the change may have been stored.
    """
    return await store.change(principal.tenant, enabled, author, expected)


async def get_external_oms_history(store: Store, principal: Principal, limit: int, before: int | None) -> History:
    """Return the tenant's newest changes, at most `limit`, with versions below `before` if it is given."""
    return History(principal.tenant, await store.history(principal.tenant, limit, before))


async def follow_external_oms(feed: Feed, principal: Principal, last_event_id: str | None) -> Subscriber:
    """Return a subscriber to the tenant's changes after the event `last_event_id`. The caller must end it.

    If `last_event_id` is None, the first event is the current setting.
    """
    after = None if last_event_id is None else EventId.parse(last_event_id)
    return await feed.subscribe(principal.tenant, after)


async def evaluate_flag(store: Store, principal: Principal, key: str) -> Evaluation:
    """Return the tenant's current setting as the feature flag `FLAG`. Raises FlagNotFound for any other `key`."""
    if key != FLAG:
        raise FlagNotFound(f"There is no flag with this key. The only flag is {FLAG}.")
    return Evaluation(FLAG, await store.current(principal.tenant))


async def evaluate_flags(store: Store, principal: Principal) -> Evaluations:
    """Return all feature flags of the tenant: the current setting is the only one."""
    setting = await store.current(principal.tenant)
    return Evaluations([Evaluation(FLAG, setting)], setting.version)


# The operationIds that require the write scope. All others require the read scope.
WRITES = frozenset({"set-external-oms-configuration"})


def operations(store: Store, feed: Feed) -> Mapping[str, Operation]:
    """Return the coroutine function of each operationId."""
    return {
        "get-oms-configuration": partial(get_external_oms, store),
        "set-external-oms-configuration": partial(set_external_oms, store),
        "get-oms-configuration-history": partial(get_external_oms_history, store),
        "follow-oms-configuration": partial(follow_external_oms, feed),
        "evaluateFlag": partial(evaluate_flag, store),
        "evaluateFlagsBulk": partial(evaluate_flags, store),
    }
