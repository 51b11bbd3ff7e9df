"""Event streams end if anything fails between the operation and the last chunk."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.web.context import EventStream, request_context
from app.web.middleware.streaming import Streaming
from tests.conftest import Run


async def no_chunks() -> AsyncIterator[bytes]:
    return
    yield


def test_stream_ends_if_a_later_layer_fails(run: Run) -> None:
    ended: list[bool] = []

    async def fail_after_the_operation(scope: Any, _receive: Any, _send: Any) -> None:
        request_context(scope).event_stream = EventStream(no_chunks(), lambda: ended.append(True))
        raise RuntimeError("an after_request hook")

    scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(RuntimeError, match="hook"):
        run(Streaming(fail_after_the_operation)(scope, None, None))  # type: ignore[arg-type]
    assert ended
