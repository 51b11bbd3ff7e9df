"""Sends requests with a token and within time limits, and turns each failure into an OmsConfigError."""

import asyncio
import contextlib
import contextvars
import inspect
import os
import re
import socket
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

import httpx
from httpx_sse import SSEError

from external_oms_config.errors import (
    ConfigurationError,
    ConnectError,
    InvalidURL,
    TokenUnavailable,
    TransportError,
    UnexpectedResponse,
)
from external_oms_config.proxy import proxy_for
from external_oms_config.reply import MALFORMED, NOT_THE_SERVICE, Reply

_BASE: Final = "/v0"
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_MAX_TOKEN_CALLS: Final = 32  # at once: a function that does not return must not use up all threads

Token = str | Callable[[], str | Awaitable[str]]


class Requests:
    """Requests to the service at `url`. A response and a token must each arrive within `timeout` seconds.

    Raises InvalidURL and ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None,
        user_agent: str,
    ) -> None:
        self.address = _base_url(url)
        self._token_source = token
        self._timeout = timeout
        self._token_calls = asyncio.Semaphore(_MAX_TOKEN_CALLS)
        try:
            self._http = httpx.AsyncClient(
                headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
                timeout=timeout,
                # With its own transport, httpx does not read NO_PROXY: it rejects some forms, and ignores networks.
                transport=transport or httpx.AsyncHTTPTransport(proxy=proxy_for(httpx.URL(self.address))),
            )
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:  # the error may quote a password
            variables = "SSL_CERT_FILE, SSL_CERT_DIR, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            text = f"cannot use the certificates or the proxy that {variables} names"
            raise ConfigurationError(text) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, *, stream_timeout: float | None = None, **request: Any
    ) -> AsyncIterator[Reply]:
        """Send a request and yield its reply if the status is 200. Raise OmsConfigError otherwise.

        The whole response must arrive within the time limit. With `stream_timeout`, only its head must. Then the body
        may last, but not without data for that many seconds.
        """
        token = await self._token()
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id, "Authorization": f"Bearer {token}"} | request.pop("headers", {})
        limits = httpx.Timeout(self._timeout, read=stream_timeout or self._timeout)
        result = f"the request to {self.address} failed"
        try:
            async with (
                asyncio.timeout(self._timeout) as timeout,
                self._http.stream(
                    method, f"{self.address}{path}", headers=headers, timeout=limits, **request
                ) as response,
            ):
                result = f"{self.address} returned {response.status_code}"
                reply = Reply(response, self.address, token, request_id)
                request_id = reply.request_id
                if response.status_code != httpx.codes.OK:
                    raise await reply.error()
                if stream_timeout is not None:
                    timeout.reschedule(None)
                yield reply
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            variable = f"{self.address.partition(':')[0].upper()}_PROXY or ALL_PROXY"
            way = f" through the proxy of {variable}" if proxy_for(httpx.URL(self.address)) else ""
            raise ConnectError(f"cannot connect to {self.address}{way}: {_reason(error)}") from error
        except (*MALFORMED, SSEError, httpx.InvalidURL) as error:
            raise UnexpectedResponse(f"{result}: {NOT_THE_SERVICE}", request_id) from error
        except (TimeoutError, httpx.HTTPError) as error:
            raise TransportError(f"the request to {self.address} failed: {_reason(error)}", request_id) from error

    async def _token(self) -> str:
        token: object = self._token_source
        try:
            async with asyncio.timeout(self._timeout):
                if callable(self._token_source):
                    token = await self._call_in_thread(self._token_source)
                if inspect.isawaitable(token):
                    token = await token
        except (Exception, SystemExit) as error:  # of the caller's function; the text may contain a secret
            reason = _system_reason(error) or type(error).__name__
            raise TokenUnavailable(f"no token for {self.address}: the token function failed: {reason}") from None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            expected = "expected the token alone, without 'Bearer' or quotation marks"
            raise TokenUnavailable(f"no token for {self.address}: {expected}")
        return token

    async def _call_in_thread(self, function: Callable[[], object]) -> object:
        """Call `function` in a daemon thread, because the end of an executor waits for its threads without a limit."""
        result: Future[object] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            except BaseException as error:  # raised below
                result.set_exception(error)

        await self._token_calls.acquire()
        try:
            threading.Thread(target=contextvars.copy_context().run, args=(call,), daemon=True).start()
        except BaseException:
            self._token_calls.release()
            raise
        returned = asyncio.wrap_future(result)
        returned.add_done_callback(lambda _: self._token_calls.release())
        return await asyncio.shield(returned)  # after a timeout too, the call counts until it ends


def _base_url(text: str) -> str:
    """Return the address of the contract's base path, /v0. `text` may end with it."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    # httpx would send a user and password instead of the token.
    is_plain = not (url.userinfo or url.query or url.fragment) and (url.port or 0) < 1 << 16
    if url.scheme not in {"http", "https"} or not url.host or not is_plain:
        raise InvalidURL("the address must be http://host:port or https://host, without user or query")
    return f"{text.rstrip('/').removesuffix(_BASE)}{_BASE}"


def _reason(error: Exception) -> str:
    """Return why a request failed. The texts of httpx are not used: they may contain a proxy's password."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no response in time"
    if isinstance(error, httpx.ProxyError):
        return "the proxy rejected the connection"
    return _system_reason(error) or "the connection was closed"


def _system_reason(error: BaseException) -> str | None:
    """Return the text of the system, TLS or DNS error that caused `error`, without an address, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            # asyncio adds the address to the text of system errors. TLS and DNS errors use other error numbers.
            has_own_numbers = isinstance(cause, ssl.SSLError | socket.gaierror)
            return str(cause.strerror) if has_own_numbers else os.strerror(cause.errno)
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = first or cause.__cause__ or cause.__context__
    return None
