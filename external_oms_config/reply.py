"""One response of the service: read within limits, without the token, and checked."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

import httpx
from httpx_sse import EventSource

from external_oms_config.errors import Conflict, Rejected, StatusError, UnexpectedResponse
from external_oms_config.records import ChangeRecord, Event, Heartbeat, HistoryPage, Setting

_MAX_BYTES: Final = 1 << 20  # of a response, or of one event
_MAX_MESSAGE_LENGTH: Final = 300
# A proxy that compresses makes the ETag weak or appends a suffix.
_ETAG: Final = re.compile(r'(?:W/)?"(0|[1-9][0-9]{0,17})(?:[^0-9a-zA-Z"][^"]*)?"')
_NO_VERSION: Final = "a proxy in front of the service has removed or replaced the header ETag, which has the version"

MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
NOT_THE_SERVICE: Final = "the response is not from the service; check the address, and any proxy in front of it"


class Reply:
    """A response whose head has arrived. Its methods raise one of MALFORMED if it is not from the service."""

    def __init__(self, response: httpx.Response, address: str, token: str, request_id: str) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ValueError  # it could expand without limit
        # JSON and event streams are UTF-8, which httpx uses without a charset. Some codecs of Python decode no text.
        response.headers["Content-Type"] = response.headers.get("Content-Type", "").partition(";")[0]
        self._response = response
        self._token = token
        self._result = f"{address} returned {response.status_code}"
        # A proxy may replace the request ID. The service logs the ID that it returns.
        self.request_id = self._without_token(response.headers.get("X-Request-ID", request_id))
        tenant = response.headers.get("Oms-Tenant")
        self._tenant = tenant and self._without_token(tenant)
        tag = _ETAG.fullmatch(response.headers.get("ETag", ""))
        self._version = tag and int(tag[1])

    async def error(self) -> StatusError:
        """Return the error for a status other than 200."""
        status = self._response.status_code
        try:
            message = (await self.json())["message"]
        except MALFORMED:
            message = NOT_THE_SERVICE
        text = f"{self._result}: {_printable(message)[:_MAX_MESSAGE_LENGTH]}"
        if status == httpx.codes.CONFLICT:
            if self._version is not None:
                whose = f" of tenant {_printable(self._tenant)}" if self._tenant else ""
                text += f" Nothing was changed; the current version{whose} is {self._version}."
            return Conflict(text, self.request_id, status, self._version)
        is_rejection = status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
        return (Rejected if is_rejection else StatusError)(text, self.request_id, status)

    async def setting(self) -> Setting:
        """Return the current setting."""
        enabled = (await self.json())["enabled"]
        if not isinstance(enabled, bool):
            raise TypeError
        if self._version is None:
            raise UnexpectedResponse(f"{self._result}: {_NO_VERSION}", self.request_id)
        return Setting(enabled, self._version, self._tenant, self.request_id)

    async def history(self) -> HistoryPage:
        """Return a page of the history."""
        content = await self.json()
        return HistoryPage(content.get("tenant"), [_change(each) for each in content["changes"]])

    async def messages(self, last_event_id: str | None) -> AsyncGenerator[Event | Heartbeat]:
        """Yield the messages of an event stream until it ends. `last_event_id` is the ID that was sent."""
        first = b"" if last_event_id is None else f"id: {last_event_id}\n".encode()
        self._response.stream = body = _BoundedBody(self._response.stream, first)
        async for event in EventSource(self._response).aiter_sse():
            body.unread = 0
            if event.event in {"change", "reset"} and event.data:
                content = self._parse(event.data)
                yield Event(content.get("tenant"), _change(content), event.event == "reset", event.id)
            elif event.id:  # httpx-sse yields a comment as an empty event, if the stream has had an ID
                yield Heartbeat()

    async def json(self) -> Any:
        """Return the body."""
        self._response.stream = _BoundedBody(self._response.stream)
        await self._response.aread()
        return self._parse(self._response.text)

    def _parse(self, text: str) -> Any:
        return json.loads(self._without_token(text))

    def _without_token(self, text: str) -> str:
        """Return `text` without the token: any service may repeat it."""
        return text.replace(self._token, "[token]")


class _BoundedBody(httpx.AsyncByteStream):
    """`first`, then the body of a response. Raises ValueError if a part of more than `_MAX_BYTES` was read.

    A reader that sets `unread` to 0 starts a new part.
    """

    def __init__(self, stream: Any, first: bytes = b"") -> None:
        self._stream = stream
        self._first = first
        self.unread = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        async for chunk in self._stream:
            self.unread += len(chunk)
            if self.unread > _MAX_BYTES:
                raise ValueError
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _printable(value: object) -> str:
    """Return the text of `value` with escapes: any service may send control characters."""
    return repr(str(value))[1:-1]


def _change(content: Mapping[str, Any]) -> ChangeRecord:
    version, enabled = content["version"], content["enabled"]
    if type(version) is not int or not isinstance(enabled, bool):
        raise TypeError
    details = (content.get(name) for name in ("changed_at", "changed_by", "reason", "request_id"))
    return ChangeRecord(version, enabled, *details)
