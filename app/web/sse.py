"""Server-Sent Events: HTML Living Standard, section 9.2."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from app.errors import ServiceError
from app.feed.feed import Subscriber
from app.model import ChangeEvent
from app.web.change_json import change_fields

_log = logging.getLogger(__name__)

EVENT_STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "X-Accel-Buffering": "no",  # nginx would hold events back until it has a page of them
}
# In seconds. Proxies close what is silent for long: Heroku's router after 55.
HEARTBEAT: Final = 15.0

_RETRY = b"retry: 1000\n\n"  # in ms: when a client that was cut off comes back
_COMMENT = b":\n\n"


async def event_stream(
    subscriber: Subscriber, expiry: Callable[[], Awaitable[float]], heartbeat: float = HEARTBEAT
) -> AsyncIterator[bytes]:
    """What goes over the wire, for as long as the listener is told anything and the token is good.

    `expiry` answers when the token ends, in seconds since 1970, or raises ServiceError where it has ended already. It
    is asked before each event, and every `heartbeat` seconds, when a comment is sent.
    """
    try:
        yield _RETRY
        while (left := await expiry() - time.time()) > 0:
            try:
                async with asyncio.timeout(min(left, heartbeat)):
                    event = await anext(subscriber, None)
            except TimeoutError:
                yield _COMMENT
                continue
            if event is None:
                return
            yield _encode(event)
    except ServiceError as error:
        _log.warning("event stream ended", extra={"cause": str(error)})


def _encode(event: ChangeEvent) -> bytes:
    data = change_fields(event.change)
    kind = "reset" if event.is_reset else "change"
    return f"id: {data['version']}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
