"""The client of the HTTP interface: what is asked, what counts as an answer, and what everything else means."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from httpx_sse import EventSource, SSEError

from app.cli.exit import CommandError, Kind
from app.cli.output import ChangeRecord, printable

# In seconds. A whole answer has the first; the stream of events is heard every 15.
LIMIT: Final = 10.0
LONGEST_SILENCE: Final = 45.0

_PATH: Final = "/config/sales_order/external_oms"
_BASE: Final = "/v0"
_MAX_ANSWER: Final = 1 << 20
_MAX_MESSAGE: Final = 300
_ETAG: Final = re.compile(r'(?:W/)?"(0|[1-9][0-9]{0,17})"')  # a proxy that compresses makes it a weak one
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1


@dataclass(frozen=True, slots=True)
class CurrentSetting:
    """The setting that an answer tells of, and the identifier that the request had."""

    enabled: bool
    version: int
    request_id: str


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """What the stream says; without a `change`, only that it is alive.

    `wait` is the pause, in seconds, that it asks for before a new connection. After a reset, changes before this one
    may not have been told.
    """

    change: ChangeRecord | None = None
    is_reset: bool = False
    wait: float | None = None


class ApiClient:
    """The service at one address, asked with one token. Raises Failure for all that is not the answer asked for."""

    def __init__(self, url: str, token: str) -> None:
        self._token = token
        self._url = _base_url(url)
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "oms-config", "Accept-Encoding": "identity"}
        try:
            self._http = httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(LIMIT))
        except (OSError, ssl.SSLError) as error:
            raise CommandError("usage", "SSL_CERT_FILE or SSL_CERT_DIR does not lead to certificates") from error
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            variables = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            raise CommandError(
                "usage", f"{variables} names a proxy that cannot be used; it takes http://host:port"
            ) from error

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """The service that `environment` names. No value is ever told."""
        url, token = environment.get("OMS_CONFIG_URL", ""), environment.get("OMS_CONFIG_TOKEN", "").strip()
        missing = [
            f"{variable} is not set; it takes {takes}"
            for variable, given, takes in (
                ("OMS_CONFIG_URL", url, "the service's address, such as http://127.0.0.1:8000"),
                ("OMS_CONFIG_TOKEN", token, "an access token"),
            )
            if not given
        ]
        if missing:
            raise CommandError("usage", "; ".join(missing))
        if not _TOKEN.fullmatch(token):
            raise CommandError(
                "usage", "OMS_CONFIG_TOKEN is no token: it takes the token alone, without 'Bearer' or a quote"
            )
        return cls(url, token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self) -> CurrentSetting:
        """What stands."""
        return self._current_setting(await self._ask("GET", _PATH))

    async def set(self, *, enabled: bool, if_version: int | None) -> CurrentSetting:
        """What stands now that it was set; a conflict where another version stands than `if_version`."""
        condition = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        return self._current_setting(await self._ask("POST", _PATH, headers=condition, body={"enabled": enabled}))

    async def history(self, *, limit: int, before: int | None = None) -> list[ChangeRecord]:
        """At most `limit` changes, newest first, all of them older than version `before`."""
        query = {"limit": limit} | ({} if before is None else {"before": before})
        answer = await self._ask("GET", f"{_PATH}/history", query=query)
        with self._understanding(answer):
            return [_change(each) for each in answer.content["changes"]]

    async def events(self, last: int | None) -> AsyncGenerator[StreamMessage]:
        """What stands and each change after it, or each change after version `last`, until the connection ends."""
        request_id = uuid.uuid4().hex
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "X-Request-ID": request_id}
        headers |= {} if last is None else {"Last-Event-ID": str(last)}
        url, timeout = f"{self._url}{_PATH}/events", httpx.Timeout(LIMIT, read=LONGEST_SILENCE)
        request = self._http.build_request("GET", url, headers=headers, timeout=timeout)
        with self._failures(request_id):
            response = await self._opened(request, request_id)
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                raise self._stranger(response, request_id)  # it was not asked for, and could grow without bound
            response.stream = bounded = _Bounded(response.stream)
            try:
                async for event in EventSource(response).aiter_sse():
                    bounded.unread = 0
                    yield _event(event.event, event.data, event.retry)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise self._stranger(response, request_id) from error
            finally:
                await response.aclose()

    async def _opened(self, request: httpx.Request, request_id: str) -> httpx.Response:
        async with asyncio.timeout(LIMIT):
            response = await self._http.send(request, stream=True)
            if response.status_code == httpx.codes.OK:
                return response
            try:
                content = await _content(response)
            finally:
                await response.aclose()
        raise self._refusal(response, content, request_id)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> "_Answer":
        request_id = uuid.uuid4().hex
        all_headers = {"Accept": "application/json", "X-Request-ID": request_id, **(headers or {})}
        request = self._http.build_request(method, f"{self._url}{path}", params=query, headers=all_headers, json=body)
        with self._failures(request_id):
            async with asyncio.timeout(LIMIT):
                response = await self._http.send(request, stream=True)
                try:
                    content = await _content(response)
                finally:
                    await response.aclose()
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response, content, request_id)
        if not isinstance(content, dict):
            raise self._stranger(response, request_id)
        return _Answer(response, content, _request_id(response, request_id))

    @contextlib.contextmanager
    def _failures(self, request_id: str) -> Iterator[None]:
        """What httpx raises, in a sentence; its own texts may hold a proxy's password."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            text = f"there is no way to {self._url}{self._proxied()}: {_reason(error)}"
            raise CommandError("failed", text, passing=True) from error
        except httpx.ProxyError as error:
            raise CommandError("failed", f"the proxy does not lead to {self._url}", passing=True) from error
        except (TimeoutError, httpx.TimeoutException) as error:
            text = f"no answer from {self._url} in time"
            raise CommandError("failed", text, request_id=request_id, passing=True, unknown=True) from error
        except SSEError as error:
            text = f"what answers at {self._url} is not the service: its answer is no stream of events"
            raise CommandError("failed", text, request_id=request_id, passing=True) from error
        except httpx.InvalidURL as error:
            text = f"what answers at {self._url} is not the service: it redirects to what is no URL"
            raise CommandError("failed", text, request_id=request_id, passing=True) from error
        except httpx.HTTPError as error:
            text = f"the connection to {self._url} broke: {_reason(error)}"
            raise CommandError("failed", text, request_id=request_id, passing=True, unknown=True) from error

    def _refusal(self, response: httpx.Response, content: object, sent_id: str) -> CommandError:
        """What an answer other than 200 means."""
        status, request_id = response.status_code, _request_id(response, sent_id)
        passing = status >= httpx.codes.INTERNAL_SERVER_ERROR
        if response.is_redirect:
            target = _target(response).replace(self._token, "[token]")
            text = f"{self._url} answers {status} and sends to {target}; OMS_CONFIG_URL takes the service's own address"
            return CommandError("failed", text, request_id=request_id, passing=True)
        if not (isinstance(content, dict) and isinstance(content.get("message"), str)):
            kind: Kind = "refused" if status in _REFUSED else "failed"
            text = f"what answers at {self._url} is not the service: {_kind_of_answer(response, self._token)}"
            return CommandError(kind, text, request_id=request_id, passing=passing, unknown=passing)
        message = printable(content["message"].replace(self._token, "[token]"))[:_MAX_MESSAGE]
        if status in _REFUSED:
            return CommandError("refused", f"refused ({status}): {message}", request_id=request_id)
        if status == httpx.codes.CONFLICT:
            return CommandError("conflict", message, request_id=request_id, version=_version(response))
        text = f"{self._url} answers {status}: {message}"
        return CommandError("failed", text, request_id=request_id, passing=passing, unknown=passing)

    def _stranger(self, response: httpx.Response, request_id: str) -> CommandError:
        """An answer that looks well and is not what was asked for."""
        text = f"what answers at {self._url} is not the service: {_kind_of_answer(response, self._token)}"
        return CommandError("failed", text, request_id=_request_id(response, request_id), passing=True, unknown=True)

    @contextlib.contextmanager
    def _understanding(self, answer: "_Answer") -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            raise self._stranger(answer.response, answer.request_id) from error

    def _current_setting(self, answer: "_Answer") -> CurrentSetting:
        version = _version(answer.response)
        if version is None:
            text = f"the answer of {self._url} has no version (ETag); a proxy may have taken it away"
            raise CommandError("failed", text, request_id=answer.request_id, unknown=True)
        with self._understanding(answer):
            return CurrentSetting(_boolean(answer.content["enabled"]), version, answer.request_id)

    def _proxied(self) -> str:
        url = urlsplit(self._url)
        proxies = getproxies()
        through = (url.scheme in proxies or "all" in proxies) and not proxy_bypass(url.hostname or "")
        return " through the environment's proxy" if through else ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A 200 with a JSON object."""

    response: httpx.Response
    content: dict[str, Any]
    request_id: str


class _Bounded(httpx.AsyncByteStream):
    """A stream of events, of which each ends in time: what reads it keeps all of an event that has no end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.unread = 0  # bytes since the last event, as whoever reads the events says

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self.unread += len(chunk)
            if self.unread > _MAX_ANSWER:
                raise ValueError("an event without end")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


_REFUSED: Final = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})


def _base_url(url: str) -> str:
    """Where the contract's paths begin, whether `url` ends with /v0 already or not."""
    if not _is_address(url):
        raise CommandError("usage", "OMS_CONFIG_URL takes http://host:port or https://host, without a user or a query")
    return f"{url.rstrip('/').removesuffix(_BASE)}{_BASE}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.port == 0 or not httpx.URL(url).host:
            return False
    except (ValueError, httpx.InvalidURL):
        return False
    # httpx would send a user's name and password in the place of the token.
    is_plain = url.isprintable() and not set(url) & set(" ?#") and "@" not in parts.netloc
    return is_plain and parts.scheme in {"http", "https"}


async def _content(response: httpx.Response) -> object:
    """The JSON of an answer; None where it is none."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > _MAX_ANSWER:
            return None
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return None
    try:
        parsed: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed


def _kind_of_answer(response: httpx.Response, token: str) -> str:
    given = response.headers.get("content-type", "").partition(";")[0].strip().replace(token, "[token]")
    kind = "no answer of it" if given in {"application/json", "text/event-stream"} else given or "no content type"
    return f"{response.status_code} with {printable(kind)[:60]}"


def _target(response: httpx.Response) -> str:
    """Where a redirect leads, without what may be secret in it."""
    try:
        target = response.url.join(response.headers["location"])
    except (httpx.InvalidURL, ValueError):
        return "nowhere"
    return printable(f"{target.scheme}://{target.netloc.decode()}{target.path}")[:_MAX_MESSAGE]


def _request_id(response: httpx.Response, sent: str) -> str:
    """The identifier that stands in the service's log: a proxy may have put its own in the place of ours."""
    given = response.headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else sent


def _version(response: httpx.Response) -> int | None:
    tag = _ETAG.fullmatch(response.headers.get("etag", ""))
    return tag and int(tag[1])


def _event(kind: str, data: str, retry: int | None) -> StreamMessage:
    wait = None if retry is None else retry / 1000
    if kind not in {"change", "reset"} or not data:  # a comment, and what may come to be told one day
        return StreamMessage(wait=wait)
    return StreamMessage(_change(json.loads(data)), is_reset=kind == "reset", wait=wait)


def _change(told: Mapping[str, Any]) -> ChangeRecord:
    """Raises KeyError, TypeError or ValueError where it is none."""
    version = told["version"]
    if type(version) is not int or version < 0:
        raise ValueError
    texts = {name: told.get(name) for name in ("changed_at", "changed_by", "request_id")}
    if not all(each is None or isinstance(each, str) for each in texts.values()):
        raise TypeError
    return ChangeRecord(version, _boolean(told["enabled"]), **texts)


def _boolean(told: object) -> bool:
    if not isinstance(told, bool):
        raise TypeError
    return told


def _reason(error: BaseException) -> str:
    """The system's own words for what stopped a connection, from the innermost cause that has any."""
    words = "it was closed" if isinstance(error, httpx.RemoteProtocolError) else "the network failed"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message} (SSL_CERT_FILE names an authority)"
        if isinstance(cause, ssl.SSLError):
            return (
                "it does not speak TLS as it should" if cause.reason != "WRONG_VERSION_NUMBER" else "it speaks no TLS"
            )
        if isinstance(cause, socket.gaierror):
            return cause.strerror or words
        if isinstance(cause, OSError) and cause.errno:
            words = os.strerror(cause.errno)  # asyncio's own words have the address in brackets
        elif isinstance(cause, httpx.ConnectTimeout):
            words = "no answer in time"
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = inner or cause.__cause__ or cause.__context__
    return words
