"""HTTP client of the service: the requests, their limits, and what a response means."""

import asyncio
import contextlib
import json
import os
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
from httpx_sse import EventSource, SSEError

from app.cli.exit import CommandError, Kind
from app.cli.output import ChangeRecord, printable
from app.errors import system_reason

# In seconds. A response must be complete within the first. The service sends something on each stream every 15 s.
_LIMIT: Final = 10.0
_LONGEST_SILENCE: Final = 45.0

_PATH: Final = "/config/sales_order/external_oms"
_BASE: Final = "/v0"
_MAX_BYTES: Final = 1 << 20
_MAX_MESSAGE: Final = 300
_ETAG: Final = re.compile(r'(?:W/)?"(0|[1-9][0-9]{0,17})"')  # a proxy that compresses makes it a weak one
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_KINDS: Final[dict[int, Kind]] = {401: "refused", 403: "refused", 409: "conflict"}
_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_NOT_THE_SERVICE: Final = "this is not an answer of the service; check OMS_CONFIG_URL, and any proxy in front of it"


@dataclass(frozen=True, slots=True)
class CurrentSetting:
    """The setting in a response, and the ID of the request."""

    enabled: bool
    version: int
    request_id: str


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message of the event stream. A keep-alive has no `change`.

    The event is `change`, or `reset` if changes before this one may be missing.
    """

    event: str
    change: ChangeRecord | None


@contextlib.asynccontextmanager
async def open_client() -> AsyncIterator["ApiClient"]:
    """Open a client for the address and the token in the environment."""
    url, token = os.environ.get("OMS_CONFIG_URL", ""), os.environ.get("OMS_CONFIG_TOKEN", "").strip()
    missing = [
        *([] if url else ["OMS_CONFIG_URL is not set; it takes the service's address, as http://127.0.0.1:8000"]),
        *([] if token else ["OMS_CONFIG_TOKEN is not set; it takes an access token"]),
    ]
    if missing:
        raise CommandError("usage", "; ".join(missing))
    if not _TOKEN.fullmatch(token):
        text = "OMS_CONFIG_TOKEN is no token: it takes the token alone, without 'Bearer' or a quote"
        raise CommandError("usage", text)
    base = _base_url(url)
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "oms-config", "Accept-Encoding": "identity"}
    try:
        http = httpx.AsyncClient(headers=headers, timeout=_LIMIT)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:  # their texts may hold a password
        variables = "SSL_CERT_FILE, SSL_CERT_DIR, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
        raise CommandError("usage", f"{variables} names certificates or a proxy that cannot be used") from error
    async with http:
        yield ApiClient(http, base, token)


class ApiClient:
    """The service at one address, with one token. Raises CommandError for every response but the expected one."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self._token = token

    async def get(self) -> CurrentSetting:
        """Return the current setting."""
        async with self._open("GET", _PATH, headers={}) as response:
            return await _current_setting(response)

    async def set(self, *, enabled: bool, if_version: int | None) -> CurrentSetting:
        """Change the setting, if `if_version` is None or the current version, and return it."""
        condition = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        async with self._open("POST", _PATH, headers=condition, json={"enabled": enabled}) as response:
            setting = await _current_setting(response)
            if setting.enabled is not enabled:
                raise ValueError("another value than the one that was sent")
            return setting

    async def history(self, *, limit: int, before: int | None = None) -> list[ChangeRecord]:
        """Return at most `limit` changes older than version `before`, newest first."""
        query = {"limit": limit} | ({} if before is None else {"before": before})
        async with self._open("GET", f"{_PATH}/history", headers={}, params=query) as response:
            return [_change(each, self._token) for each in (await _read_json(response))["changes"]]

    async def events(self, last: int | None) -> AsyncGenerator[StreamMessage]:
        """Yield the current setting and each change, or each change after version `last`, until the stream ends."""
        headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
        timeout = httpx.Timeout(_LIMIT, read=_LONGEST_SILENCE)
        async with self._open("GET", f"{_PATH}/events", headers=headers, is_stream=True, timeout=timeout) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ValueError("compressed, which has no bound")
            response.stream = bounded = _BoundedStream(response.stream)
            async for event in EventSource(response).aiter_sse():
                bounded.unread = 0
                has_change = event.event in {"change", "reset"} and event.data
                yield StreamMessage(event.event, _change(json.loads(event.data), self._token) if has_change else None)

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, path: str, *, headers: dict[str, str], is_stream: bool = False, **request: Any
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield its response, which has the status 200. A stream may take any time to read."""
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id, **headers}
        try:
            async with (
                asyncio.timeout(_LIMIT) as timeout,
                self._http.stream(method, f"{self._url}{path}", headers=headers, **request) as response,
            ):
                # A proxy may have replaced the ID that was sent. The service logs the one in the response.
                request_id = response.headers["X-Request-ID"] = _request_id(response) or request_id
                if response.status_code != httpx.codes.OK:
                    raise await self._error(response)
                timeout.reschedule(None if is_stream else timeout.when())
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise CommandError("failed", f"cannot connect to {self._url}: {_reason(error)}") from error
        except (*_MALFORMED, SSEError, httpx.InvalidURL) as error:
            text = f"{self._url} answers 200: {_NOT_THE_SERVICE}"
            raise CommandError("failed", text, request_id=request_id, unknown_outcome=True) from error
        except (TimeoutError, httpx.HTTPError) as error:
            text = f"the request to {self._url} failed: {_reason(error)}"
            raise CommandError("failed", text, request_id=request_id, unknown_outcome=True) from error

    async def _error(self, response: httpx.Response) -> CommandError:
        """Return what a response with another status than 200 means."""
        status, version = response.status_code, _version(response)
        try:
            message = (await _read_json(response))["message"].replace(self._token, "[token]")
        except _MALFORMED:
            message = _NOT_THE_SERVICE
        text = f"{self._url} answers {status}: {printable(message)[:_MAX_MESSAGE]}"
        if status == httpx.codes.CONFLICT and version is not None:
            text += f" Nothing was changed; the current version is {version}."
        return CommandError(
            _KINDS.get(status, "failed"),
            text,
            request_id=response.headers["X-Request-ID"],
            version=version,
            unknown_outcome=status >= httpx.codes.INTERNAL_SERVER_ERROR,
        )


class _BoundedStream(httpx.AsyncByteStream):
    """A response body in which `unread`, the bytes since the last event, is bounded. The SSE decoder keeps them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.unread = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self.unread += len(chunk)
            if self.unread > _MAX_BYTES:
                raise ValueError("an event without end")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _base_url(text: str) -> str:
    """Return the base of the contract's paths, whether `text` ends with /v0 or not."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    # httpx would send a user and password in place of the token.
    is_plain = not (url.userinfo or url.query or url.fragment) and (url.port or 0) < 1 << 16
    if url.scheme not in {"http", "https"} or not url.host or not is_plain:
        raise CommandError("usage", "OMS_CONFIG_URL takes http://host:port or https://host, without a user or a query")
    return f"{text.rstrip('/').removesuffix(_BASE)}{_BASE}"


async def _read_json(response: httpx.Response) -> Any:
    content = bytearray()
    async for chunk in response.aiter_raw():  # not decompressed, so that its size is bounded
        content += chunk
        if len(content) > _MAX_BYTES:
            raise ValueError("a response without end")
    return json.loads(content)


def _request_id(response: httpx.Response) -> str | None:
    request_id = response.headers.get("X-Request-ID", "")
    return request_id if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", request_id) else None


def _version(response: httpx.Response) -> int | None:
    tag = _ETAG.fullmatch(response.headers.get("ETag", ""))
    return tag and int(tag[1])


async def _current_setting(response: httpx.Response) -> CurrentSetting:
    version, content = _version(response), await _read_json(response)
    if version is None or not isinstance(content["enabled"], bool):
        raise TypeError
    return CurrentSetting(content["enabled"], version, response.headers["X-Request-ID"])


def _change(content: dict[str, Any], token: str) -> ChangeRecord:
    """Return the change that `content` describes, without the token: any service may repeat it."""
    version, enabled = content["version"], content["enabled"]
    texts = [content.get(name) for name in ("changed_at", "changed_by", "request_id")]
    if (
        type(version) is not int
        or not isinstance(enabled, bool)
        or not all(isinstance(each, str | None) for each in texts)
    ):
        raise TypeError
    return ChangeRecord(version, enabled, *(each and each.replace(token, "[token]") for each in texts))


def _reason(error: Exception) -> str:
    """Return why a request failed. httpx's own texts may hold a proxy's password."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.ProxyError):
        return "the proxy refuses it"
    return system_reason(error) or "the connection was closed"
