"""HTTP client of the service: sends requests with limits, and turns each response into a value or a CommandError."""

import asyncio
import contextlib
import json
import os
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from httpx_sse import EventSource, SSEError

from app.cli.exit_status import CommandError, Kind
from app.cli.output import ChangeRecord, printable
from app.cli.proxy import proxy_for
from app.errors import system_reason
from app.version import VERSION

_RESPONSE_TIMEOUT: Final = 10.0  # seconds until a response must be complete
_STREAM_TIMEOUT: Final = 45.0  # seconds without data; the service sends a comment every 15 s

_PATH: Final = "/config/sales_order/external_oms"
_BASE: Final = "/v0"
_MAX_BYTES: Final = 1 << 20  # of a response, or of one event
_MAX_MESSAGE_LENGTH: Final = 300
# A proxy that compresses makes the ETag weak or appends a suffix.
_ETAG: Final = re.compile(r'(?:W/)?"(0|[1-9][0-9]{0,17})(?:[^0-9a-zA-Z"][^"]*)?"')
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_KINDS: Final[dict[int, Kind]] = {401: "refused", 403: "refused", 409: "conflict"}
_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_VARIABLES: Final = {
    "OMS_CONFIG_URL": "set it to the service's address, such as http://127.0.0.1:8000",
    "OMS_CONFIG_TOKEN": "set it to an access token",
}
_NO_VERSION: Final = "a proxy in front of the service has removed or replaced the header ETag, which has the version"
_NOT_THE_SERVICE: Final = "the response is not from the service; check OMS_CONFIG_URL, and any proxy in front of it"


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message of the event stream.

    `event` is `change`, or `reset` if changes before this one may be missing. `change` is None for a comment. `id` is
    the ID of the last event, or empty before the first.
    """

    event: str
    change: ChangeRecord | None
    id: str


@contextlib.asynccontextmanager
async def open_client() -> AsyncIterator["ApiClient"]:
    """Open a client with OMS_CONFIG_URL and OMS_CONFIG_TOKEN from the environment. It closes with the context.

    Raise CommandError if a variable is missing or unusable.
    """
    given = {name: os.environ.get(name, "").strip() for name in _VARIABLES}
    if missing := [f"{name} is not set: {advice}" for name, advice in _VARIABLES.items() if not given[name]]:
        raise CommandError("usage", "; ".join(missing))
    url, token = given.values()
    if not _TOKEN.fullmatch(token):
        text = "OMS_CONFIG_TOKEN is not a token: set it to the token alone, without 'Bearer' or quotation marks"
        raise CommandError("usage", text)
    base = _base_url(url)
    headers = {"Authorization": f"Bearer {token}", "User-Agent": f"oms-config/{VERSION}", "Accept-Encoding": "identity"}
    try:
        # With its own transport, httpx does not read NO_PROXY: it rejects some forms, and ignores networks.
        transport = httpx.AsyncHTTPTransport(proxy=proxy_for(httpx.URL(base)))
        timeout = httpx.Timeout(_RESPONSE_TIMEOUT, read=_STREAM_TIMEOUT)
        http = httpx.AsyncClient(headers=headers, timeout=timeout, transport=transport)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:  # the error may quote a password
        variables = "SSL_CERT_FILE, SSL_CERT_DIR, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
        raise CommandError("usage", f"cannot use the certificates or the proxy that {variables} names") from error
    async with http:
        yield ApiClient(http, base, token)


class ApiClient:
    """A client of the service at one address, with one token.

    Each method raises CommandError unless the service returns 200 and the expected body.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self._token = token

    async def get(self) -> ChangeRecord:
        """Return the current setting."""
        async with self._open("GET", _PATH) as response:
            return await self._current_setting(response)

    async def set(self, *, enabled: bool, if_version: int | None) -> ChangeRecord:
        """Set `enabled`, with `if_version` only if that version is current. Return the current setting."""
        condition = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        async with self._open("POST", _PATH, headers=condition, json={"enabled": enabled}) as response:
            setting = await self._current_setting(response)
            if setting.enabled is not enabled:
                raise ValueError
            return setting

    async def history(self, *, limit: int, before: int | None = None) -> list[ChangeRecord]:
        """Return at most `limit` changes, newest first. If `before` is given, they are older than that version."""
        query = {"limit": limit} | ({} if before is None else {"before": before})
        async with self._open("GET", f"{_PATH}/history", params=query) as response:
            return [_change(each) for each in (await self._read_json(response))["changes"]]

    async def events(self, last: str | None) -> AsyncGenerator[StreamMessage]:
        """Yield the current setting, then each change. If `last` is given, start with the change after that event."""
        headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})
        async with self._open("GET", f"{_PATH}/events", headers=headers, is_stream=True) as response:
            response.stream = body = _BoundedBody(response.stream)
            async for event in EventSource(response).aiter_sse():
                body.unread = 0
                has_change = event.event in {"change", "reset"} and event.data
                change = _change(self._parse(event.data)) if has_change else None
                yield StreamMessage(event.event, change, event.id)

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, path: str, *, is_stream: bool = False, **request: Any
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield its response if the status is 200. Raise CommandError otherwise.

        The whole response must arrive within the time limit. For a stream, only its head must.
        """
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id} | request.pop("headers", {})
        result = f"the request to {self._url} failed"
        try:
            async with (
                asyncio.timeout(_RESPONSE_TIMEOUT) as timeout,
                self._http.stream(method, f"{self._url}{path}", headers=headers, **request) as response,
            ):
                result = f"{self._url} returned {response.status_code}"
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise ValueError  # it could expand without limit
                # A proxy may replace the request ID. The service logs the ID that it returns.
                request_id = self._without_token(response.headers.get("X-Request-ID", request_id))
                response.headers["X-Request-ID"] = request_id
                if response.status_code != httpx.codes.OK:
                    raise await self._error(response)
                if is_stream:
                    timeout.reschedule(None)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise CommandError("failed", f"cannot connect to {self._url}: {_reason(error)}") from error
        except (*_MALFORMED, SSEError, httpx.InvalidURL) as error:
            text = f"{result}: {_NOT_THE_SERVICE}"
            raise CommandError("failed", text, request_id=request_id, unknown_outcome=True) from error
        except (TimeoutError, httpx.HTTPError) as error:
            text = f"the request to {self._url} failed: {_reason(error)}"
            raise CommandError("failed", text, request_id=request_id, unknown_outcome=True) from error

    async def _error(self, response: httpx.Response) -> CommandError:
        """Return the error for a response whose status is not 200."""
        status, version = response.status_code, _version(response)
        try:
            message = (await self._read_json(response))["message"]
        except _MALFORMED:
            message = _NOT_THE_SERVICE
        text = f"{self._url} returned {status}: {printable(message)[:_MAX_MESSAGE_LENGTH]}"
        if status == httpx.codes.CONFLICT and version is not None:
            text += f" Nothing was changed; the current version is {version}."
        return CommandError(
            _KINDS.get(status, "failed"),
            text,
            request_id=response.headers["X-Request-ID"],
            version=version,
            unknown_outcome=status >= httpx.codes.INTERNAL_SERVER_ERROR,
        )

    async def _current_setting(self, response: httpx.Response) -> ChangeRecord:
        content, version = await self._read_json(response), _version(response)
        enabled, request_id = content["enabled"], response.headers["X-Request-ID"]
        if isinstance(enabled, bool) and version is None:
            text = f"{self._url} returned {response.status_code}: {_NO_VERSION}"
            raise CommandError("failed", text, request_id=request_id, unknown_outcome=True)
        return _change({"enabled": enabled, "version": version, "request_id": request_id})

    async def _read_json(self, response: httpx.Response) -> Any:
        response.stream = _BoundedBody(response.stream)
        await response.aread()
        return self._parse(response.text)

    def _parse(self, text: str) -> Any:
        return json.loads(self._without_token(text))

    def _without_token(self, text: str) -> str:
        """Return `text` without the token: any service may repeat it."""
        return text.replace(self._token, "[token]")


class _BoundedBody(httpx.AsyncByteStream):
    """The body of a response. Raises ValueError if a part of more than `_MAX_BYTES` was read.

    A reader that sets `unread` to 0 starts a new part.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.unread = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self.unread += len(chunk)
            if self.unread > _MAX_BYTES:
                raise ValueError
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _base_url(text: str) -> str:
    """Return the address of the contract's base path, /v0. `text` may end with it."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    # httpx would send a user and password instead of the token.
    is_plain = not (url.userinfo or url.query or url.fragment) and (url.port or 0) < 1 << 16
    if url.scheme not in {"http", "https"} or not url.host or not is_plain:
        raise CommandError("usage", "OMS_CONFIG_URL must be http://host:port or https://host, without user or query")
    return f"{text.rstrip('/').removesuffix(_BASE)}{_BASE}"


def _version(response: httpx.Response) -> int | None:
    tag = _ETAG.fullmatch(response.headers.get("ETag", ""))
    return tag and int(tag[1])


def _change(content: Mapping[str, Any]) -> ChangeRecord:
    version, enabled = content["version"], content["enabled"]
    if type(version) is not int or not isinstance(enabled, bool):
        raise TypeError
    return ChangeRecord(version, enabled, *(content.get(name) for name in ("changed_at", "changed_by", "request_id")))


def _reason(error: Exception) -> str:
    """Return why a request failed. The texts of httpx are not used: they may contain a proxy's password."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no response in time"
    if isinstance(error, httpx.ProxyError):
        return "the proxy rejected the connection"
    return system_reason(error) or "the connection was closed"
