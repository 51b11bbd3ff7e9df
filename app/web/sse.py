"""Event streams as Server-Sent Events (HTML Living Standard, section 9.2)."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from app.errors import ServiceError
from app.feed.subscriber import Subscriber
from app.model import ChangeEvent, EventId
from app.web.change_json import change_fields

_log = logging.getLogger(__name__)

EVENT_STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "X-Accel-Buffering": "no",  # nginx would buffer events
}
# In seconds. Proxies close silent connections: Heroku's router after 55 s.
HEARTBEAT: Final = 15.0

_RETRY = b"retry: 1000\n\n"  # in ms: the delay before a client reconnects
_COMMENT = b":\n\n"


async def event_stream(
    subscriber: Subscriber, expiry: Callable[[], Awaitable[float]], heartbeat: float = HEARTBEAT
) -> AsyncIterator[bytes]:
    """Yield the encoded events until `subscriber` ends or the token expires.

    `expiry` must return the token's expiry in seconds since 1970, or raise ServiceError if the token is no longer
    accepted. It is called before each event. After `heartbeat` seconds without an event, a comment is sent.
    """
    try:
        yield _RETRY
        while (remaining := await expiry() - time.time()) > 0:
            try:
                async with asyncio.timeout(min(remaining, heartbeat)):
                    event = await anext(subscriber, None)
            except TimeoutError:
                yield _COMMENT
                continue
            if event is None:
                return
            yield _encode(subscriber.topic.tenant, event)
    except ServiceError as error:
        _log.warning("event stream ended", extra={"cause": str(error)})


def _encode(tenant: str, event: ChangeEvent) -> bytes:
    kind = "reset" if event.is_reset else "change"
    data = json.dumps({"tenant": tenant, **change_fields(event.change)})
    return f"id: {EventId.of(event.change)}\nevent: {kind}\ndata: {data}\n\n".encode()
