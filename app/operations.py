"""What the service does: one coroutine for each operationId of the documents, readable as the rule it keeps.

An operation's arguments say all it needs. The first is what it works on, the store or the feed; the others are filled
by name: `principal`, `request_id`, `expected` (the versions that the request is meant for, or None for any), parameters
that the document declares, and properties that it requires in the body.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from app.errors import FlagNotFound
from app.feed.feed import Feed, Subscriber
from app.model import Author, Evaluation, Evaluations, Expected, History, Principal, Setting
from app.store import Store

Operation = Callable[..., Coroutine[Any, Any, object]]

FLAG = "external_oms.enabled"


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


async def follow_external_oms(feed: Feed, principal: Principal, last_event_id: int | None) -> Subscriber:
    """Each change of the tenant's setting after the version `last_event_id`; if that is None, first what stands."""
    return await feed.subscribe(principal.tenant, after=last_event_id)


async def evaluate_flag(store: Store, principal: Principal, key: str) -> Evaluation:
    """The tenant's setting as the one feature flag that there is. FlagNotFound for any other `key`."""
    if key != FLAG:
        raise FlagNotFound(f"There is no flag of this key; the only one is {FLAG}.")
    return Evaluation(FLAG, await store.current(principal.tenant))


async def evaluate_flags(store: Store, principal: Principal) -> Evaluations:
    """The tenant's setting as all feature flags that there are."""
    setting = await store.current(principal.tenant)
    return Evaluations([Evaluation(FLAG, setting)], setting.version)


# Those that need the scope for writing; all others need the one for reading.
WRITES = frozenset({"set-external-oms-configuration"})


def operations(store: Store, feed: Feed) -> Mapping[str, Operation]:
    """The operation of each operationId."""
    return {
        "get-oms-configuration": partial(get_external_oms, store),
        "set-external-oms-configuration": partial(set_external_oms, store),
        "get-oms-configuration-history": partial(get_external_oms_history, store),
        "follow-oms-configuration": partial(follow_external_oms, feed),
        "evaluateFlag": partial(evaluate_flag, store),
        "evaluateFlagsBulk": partial(evaluate_flags, store),
    }
