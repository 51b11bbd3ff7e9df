"""JWKS: fetches the key sets of identity providers, caches them and limits the number of requests."""

import asyncio
import collections
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx

from app.auth.keys import MAX_ADDRESS_CHARACTERS, Key, is_trusted_address, keys_from_jwks, without_query
from app.errors import KeyUnavailable, Mistake, RejectionReason, Unauthorized, system_reason

_log = logging.getLogger(__name__)

FETCH_SECONDS: Final = 2.0  # time limit of one fetch, discovery included
MAX_FETCHES: Final = 64  # at the same time
MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_FAILURE: Final = 300  # characters of a failure's text, which may contain text from the provider
MAX_CANDIDATES: Final = 4  # keys that a token is verified with, if its kid and alg do not choose one
ASK_AGAIN_SECONDS: Final = 5.0  # minimum time between two fetches from one issuer
ABSENT_SECONDS: Final = 60.0  # pause after an issuer without cached keys answered 404
OUTAGE_SECONDS: Final = 3600.0  # how long keys are used after their TTL while their issuer fails
MAX_KEYS_KEPT: Final = 8192  # of all issuers together; a key takes at most 7 KiB, and no keys count as one
MAX_LOOKUPS: Final = 20  # fetches for issuers without cached keys, within LOOKUP_SECONDS
LOOKUP_SECONDS: Final = 10.0
_NEVER: Final = float("-inf")


class FetchError(Exception):
    """A document could not be fetched. The text gives the reason."""


class DocumentNotFound(FetchError):
    """The issuer has no discovery document."""


class JwksKeySource:
    """A `KeySource` of JWK Sets: one set per issuer, or one set at `location` for all tokens.

    A set is fetched again after `ttl` seconds, or if none of its keys has signed a token. `accepted` are the algorithms
    that keys may be used with. `clock` returns monotonic seconds. The caller must call `close`, which also closes
    `fetcher`.
    """

    def __init__(
        self,
        fetcher: "JwksFetcher",
        accepted: Sequence[str],
        ttl: float,
        *,
        location: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._accepted = accepted
        self._ttl = ttl
        self._location = location
        self._clock = clock
        self._issuers: dict[str, _IssuerState] = {}  # the least recently used one first
        self._lookups: collections.deque[float] = collections.deque(maxlen=MAX_LOOKUPS)
        self._fetches = 0

    async def find(self, issuer: str | None, key_id: str | None, algorithm: object) -> Sequence[Key]:
        """See `KeySource`."""
        if algorithm not in self._accepted:
            raise Unauthorized("The token is signed with an algorithm that is not accepted.", RejectionReason.ALGORITHM)
        state = self._state_of(self._location or issuer or "")
        age = self._clock() - state.fetched_at
        if age > self._ttl + OUTAGE_SECONDS:
            await self._require_keys(state)
        elif age > self._ttl and self._may_fetch(state):
            fetched = self._fetch(state)
            if state.failure is None:  # during an outage, only the first lookup waits
                await fetched
        found = state.find(key_id, algorithm)
        if not found and self._may_fetch(state):
            await self._fetch(state)
            found = state.find(key_id, algorithm)
        if not found and state.is_not_found:
            detail = f"{state.shown} has no discovery document: it answered 404"
            raise Unauthorized("The token's issuer does not exist.", RejectionReason.ISSUER, detail)
        if not 0 < len(found) <= MAX_CANDIDATES:
            detail = f"{len(found)} keys of {state.shown} fit the token's kid and alg; {state.ignored}"
            raise Unauthorized("The token's key is not in its issuer's key set.", RejectionReason.KEY, detail)
        return found

    async def refresh(self, issuer: str | None) -> bool:
        """See `KeySource`. Does nothing if the last fetch was a moment ago."""
        state = self._state_of(self._location or issuer or "")
        before = state.keys
        if self._may_fetch(state):
            await self._fetch(state)
        return state.keys != before

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """See `KeySource`."""
        state = self._issuers.get(self._location or issuer or "")
        if state is None or self._clock() - state.fetched_at > self._ttl:
            return False
        return any(key is each for each in state.keys)

    async def close(self) -> None:
        """See `KeySource`."""
        tasks = [each.fetch_task for each in self._issuers.values() if each.fetch_task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetcher.close()

    def _state_of(self, location: str) -> "_IssuerState":
        """Return the cached state of an issuer and mark it as recently used, or return a new state, not yet cached."""
        state = self._issuers.pop(location, None)
        if state is None:
            return _IssuerState(location)
        self._issuers[location] = state
        return state

    async def _require_keys(self, state: "_IssuerState") -> None:
        """Fetch the keys of an issuer without usable keys. Raises KeyUnavailable if it cannot be asked or fails."""
        if state.is_not_found and self._clock() < state.next_fetch_at:
            return
        if not self._may_fetch(state):
            raise KeyUnavailable(f"no keys of {state.shown}: {state.failure or 'too many key sets are being fetched'}")
        if not state.keys and state.fetch_task is None:
            now = self._clock()
            if len(self._lookups) == MAX_LOOKUPS and now - self._lookups[0] < LOOKUP_SECONDS:
                raise KeyUnavailable(f"no keys of {state.shown}: too many tokens of unknown issuers a moment ago")
            self._lookups.append(now)
        await self._fetch(state)
        if state.failure is not None:
            raise KeyUnavailable(f"no keys of {state.shown}: {state.failure}")

    def _may_fetch(self, state: "_IssuerState") -> bool:
        """Return True if a fetch is running or may start."""
        may_start = self._fetches < MAX_FETCHES and self._clock() >= state.next_fetch_at
        return state.fetch_task is not None or may_start

    def _fetch(self, state: "_IssuerState") -> Awaitable[None]:
        """Start a fetch or join the running one. It continues if the caller is cancelled."""
        if state.fetch_task is None:
            self._issuers[state.location] = state
            state.next_fetch_at = self._clock() + ASK_AGAIN_SECONDS
            self._fetches += 1
            state.fetch_task = asyncio.create_task(self._run_fetch(state))
        return asyncio.shield(state.fetch_task)

    async def _run_fetch(self, state: "_IssuerState") -> None:
        try:
            keys, ignored = await fetch_keys(self._fetcher, state.location, self._accepted)
        except DocumentNotFound:
            if not state.keys:  # an issuer that had keys may come back soon
                state.next_fetch_at = self._clock() + ABSENT_SECONDS
            state.keys, state.fetched_at, state.is_not_found, state.failure = [], _NEVER, True, None
        except FetchError as error:
            state.is_not_found, state.failure = False, str(error)
            _log.warning("keys not fetched", extra={"issuer": state.shown, "cause": state.failure})
        else:
            state.update(keys, ignored, self._clock())
            if not keys:
                _log.warning("no usable keys", extra={"issuer": state.shown, "cause": state.ignored})
        finally:
            state.fetch_task = None
            self._fetches -= 1
            self._evict()

    def _evict(self) -> None:
        """Evict issuers while there are too many keys: first those without keys, then the least recently used."""
        excess = sum(issuer.size for issuer in self._issuers.values()) - MAX_KEYS_KEPT
        idle = [issuer for issuer in self._issuers.values() if issuer.fetch_task is None] if excess > 0 else []
        for issuer in sorted(idle, key=lambda issuer: bool(issuer.keys)):
            if excess > 0:
                excess -= issuer.size
                del self._issuers[issuer.location]


class _IssuerState:
    """The cached keys of one issuer and the state of its fetches. Times are those of the source's clock."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.keys: Sequence[Key] = []  # of the last successful fetch
        self.ignored = ""  # the other keys of that fetch, with reasons
        self.fetched_at = self.next_fetch_at = _NEVER
        self.is_not_found = False
        self.failure: str | None = None  # reason, if the last fetch failed
        self.fetch_task: asyncio.Task[None] | None = None

    @property
    def shown(self) -> str:
        """The location for the log."""
        return without_query(self.location)

    @property
    def size(self) -> int:
        """The number of keys that it counts as."""
        return max(1, len(self.keys))

    def find(self, key_id: str | None, algorithm: object) -> Sequence[Key]:
        """Return the keys for a token: those with its key ID, or else those without one. No ID means any key."""
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if key_id is None:
            return fitting
        return [key for key in fitting if key.key_id == key_id] or [key for key in fitting if key.key_id is None]

    def update(self, keys: Sequence[Key], ignored: Sequence[str], now: float) -> None:
        """Store fetched keys. An unchanged key stays the same object, so that cached tokens remain valid."""
        old = {(key.key_id, key.algorithms): key for key in self.keys}
        self.keys = [known if (known := old.get((key.key_id, key.algorithms))) == key else key for key in keys]
        self.ignored = f"{len(ignored)} other keys are ignored: {'; '.join(ignored)}"[:MAX_FAILURE]
        self.fetched_at, self.is_not_found, self.failure = now, False, None


async def fetch_keys(
    fetcher: "JwksFetcher", location: str, accepted: Sequence[str]
) -> tuple[Sequence[Key], Sequence[str]]:
    """Fetch a key set within FETCH_SECONDS, and return what `keys_from_jwks` returns.

    Raises FetchError, with at most MAX_FAILURE characters, or DocumentNotFound if the issuer does not exist.
    """
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            return keys_from_jwks(await fetcher.fetch(location), accepted)
    except TimeoutError as error:
        raise FetchError(f"TimeoutError: no keys after {FETCH_SECONDS:g} s") from error
    except Mistake as error:
        raise FetchError(str(error)) from error
    except FetchError as error:
        raise type(error)(str(error)[:MAX_FAILURE]) from error


class JwksFetcher:
    """Fetches JWK Sets over HTTPS. Certificates are verified with the system's CA store, or `SSL_CERT_FILE`.

    A location is the address of a set. With `discover`, it is an issuer, whose discovery document has the address.
    """

    def __init__(self, *, discover: bool) -> None:
        self._discover = discover
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,  # ignore proxy variables and .netrc
            follow_redirects=False,
            timeout=FETCH_SECONDS,
            # No limit, because a hung issuer occupies a connection that others would wait for. MAX_FETCHES applies.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            # RFC 7517, section 8.5.2, defines a type for key sets. Any other type may contain JSON too.
            headers={"Accept": "application/json, application/jwk-set+json, */*;q=0.5", "Accept-Encoding": "identity"},
        )

    async def fetch(self, location: str) -> object:
        """Return the JSON of a key set. Raises FetchError, or DocumentNotFound if the issuer does not exist."""
        address = await self._jwks_uri(location) if self._discover else location
        return await self._get(address)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _jwks_uri(self, issuer: str) -> str:
        """Return the `jwks_uri` of an issuer (OpenID Connect Discovery 1.0, sections 3 and 4)."""
        document = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration", not_found=DocumentNotFound)
        named = document.get("issuer") if isinstance(document, dict) else None
        if named != issuer:
            raise FetchError(f"the discovery document has another issuer: {named!r}")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not is_trusted_address(address):
            raise FetchError(
                f"the discovery document's jwks_uri is not an https URL of at most {MAX_ADDRESS_CHARACTERS} characters"
            )
        return address

    async def _get(self, address: str, not_found: type[FetchError] = FetchError) -> Any:
        """Return the JSON document at `address`. Raises FetchError if it is not one JSON value of at most 256 KiB.

        Raises `not_found` if the answer is 404.
        """
        shown = without_query(address)
        try:
            async with self._client.stream("GET", address) as response:
                if response.status_code != httpx.codes.OK:
                    failure = not_found if response.status_code == httpx.codes.NOT_FOUND else FetchError
                    raise failure(f"{shown} answered {response.status_code}")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise FetchError(f"{shown} answered with a Content-Encoding that was not requested")
                content = await _bounded(response, shown)
            return json.loads(content)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError(f"{shown}: {type(error).__name__} {system_reason(error) or error}") from error
        except (ValueError, RecursionError) as error:
            raise FetchError(f"{shown} answered with a body that is not JSON") from error


async def _bounded(response: httpx.Response, shown: str) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_DOCUMENT_BYTES:
            raise FetchError(f"{shown} answered with more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(content)
