"""The keys that identity providers publish: fetched, kept, and asked for again, without ever asking too much."""

import asyncio
import collections
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from app.auth.keys import Key, keys_from_jwks
from app.errors import KeyUnavailable, RejectionReason, Unauthorized

_log = logging.getLogger(__name__)

FETCH_SECONDS: Final = 2.0  # for all that one fetch takes, discovery included
MAX_FETCHES: Final = 64  # at a time
MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_ADDRESS_CHARACTERS: Final = 2048
MAX_FAILURE: Final = 300  # characters that are kept of why a fetch failed; a provider writes a part of them
ASK_AGAIN_SECONDS: Final = 5.0  # between two fetches from one issuer, whatever the reason
ABSENT_SECONDS: Final = 60.0  # for which an issuer that does not exist is not asked for again
OUTAGE_SECONDS: Final = 3600.0  # for which keys are used past their time, while their issuer gives no answer
MAX_ISSUERS: Final = 4096
MAX_KEYS_KEPT: Final = 8192  # of all issuers together, at most 7 KiB each
MAX_LOOK_UPS: Final = 20  # of issuers that are not known, within
LOOK_UP_SECONDS: Final = 10.0


class FetchError(Exception):
    """A document could not be had. The text says why."""


class DocumentNotFound(FetchError):
    """The provider says that there is no such document: 404."""


class JwksKeySource:
    """A `KeySource` of keys that are published in JWK Sets, one for each issuer, or one at `location` for all.

    The keys of a set are used for `ttl` seconds, then the set is fetched again. `accepted` are the algorithms that a
    key may be used with. `clock` gives seconds that only rise.
    """

    def __init__(
        self,
        sets: "JwksFetcher",
        accepted: Sequence[str],
        ttl: float,
        *,
        location: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sets = sets
        self._accepted = accepted
        self._ttl = ttl
        self._location = location
        self._clock = clock
        self._issuers: dict[str, _IssuerState] = {}
        self._look_ups: collections.deque[float] = collections.deque(maxlen=MAX_LOOK_UPS)
        self._fetches = 0

    async def find(self, issuer: str | None, key_id: str | None) -> Key:
        """See `KeySource`."""
        known = self._known(self._location or issuer or "")
        age = self._clock() - known.read_at
        if known.keys is None or age > self._ttl + OUTAGE_SECONDS:
            await self._look_up(known)
        elif age > self._ttl:
            await self._renew(known)
        key = known.key(key_id)
        if key is None and (known.asking is not None or self._may_ask(known)):
            await self._ask(known)
            key = known.key(key_id)
        if key is None:
            raise Unauthorized("The token's key is none of its issuer's.", RejectionReason.KEY)
        return key

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """See `KeySource`."""
        known = self._issuers.get(self._location or issuer or "")
        if known is None or known.keys is None or self._clock() - known.read_at > self._ttl:
            return False
        return any(key is each for each in known.keys.values())

    async def close(self) -> None:
        """See `KeySource`."""
        asking = [each.asking for each in self._issuers.values() if each.asking is not None]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._sets.close()

    def _known(self, location: str) -> "_IssuerState":
        """What is known of an issuer. The one that was asked for last is forgotten last."""
        known = self._issuers.pop(location, None)
        if known is None:
            return _IssuerState(location)
        self._issuers[location] = known
        return known

    def _remember(self, known: "_IssuerState") -> None:
        """Keeps what is known of an issuer, in the place of one without keys, or of the one asked for longest ago."""
        if known.location not in self._issuers and len(self._issuers) >= MAX_ISSUERS:
            idle = [each for each, issuer in self._issuers.items() if issuer.asking is None]
            without = (each for each in idle if self._issuers[each].keys is None)
            del self._issuers[next(without, idle[0])]
        self._issuers[known.location] = known

    def _make_room(self) -> None:
        """Forgets issuers while there are too many keys: first those with many, so that they displace no others."""
        excess = sum(issuer.size for issuer in self._issuers.values()) - MAX_KEYS_KEPT
        idle = [issuer for issuer in self._issuers.values() if issuer.asking is None] if excess > 0 else []
        for issuer in sorted(idle, key=lambda issuer: issuer.size, reverse=True):
            if excess > 0:
                excess -= issuer.size
                del self._issuers[issuer.location]

    async def _look_up(self, known: "_IssuerState") -> None:
        """Asks for the keys of an issuer of which none are known that can be used. Raises where they cannot be had."""
        if known.asking is None:
            now = self._clock()
            if known.absent and now - known.asked_at < known.absent_seconds:
                raise Unauthorized("The token's issuer does not exist.", RejectionReason.ISSUER)
            if not self._may_ask(known):
                raise KeyUnavailable(f"no keys of {known.location}: {known.failure or 'too many are being fetched'}")
            if known.keys is None and len(self._look_ups) == MAX_LOOK_UPS and now - self._look_ups[0] < LOOK_UP_SECONDS:
                raise KeyUnavailable(f"no keys of {known.location}: too many unknown issuers were asked for")
            if known.keys is None:
                self._look_ups.append(now)
        await self._ask(known)
        if known.absent:
            raise Unauthorized("The token's issuer does not exist.", RejectionReason.ISSUER)
        if known.keys is None or known.failure is not None:
            raise KeyUnavailable(f"no keys of {known.location}: {known.failure}")

    async def _renew(self, known: "_IssuerState") -> None:
        """Asks for keys again whose time is over. Waits for the answer but where the last one did not come."""
        if known.asking is None and not self._may_ask(known):
            return
        asking = self._ask(known)
        if known.failure is None:
            await asking
            if known.absent:
                raise Unauthorized("The token's issuer does not exist.", RejectionReason.ISSUER)

    def _may_ask(self, known: "_IssuerState") -> bool:
        is_free = known.asking is None and self._fetches < MAX_FETCHES
        return is_free and self._clock() - known.asked_at >= ASK_AGAIN_SECONDS

    def _ask(self, known: "_IssuerState") -> Awaitable[None]:
        """Waits for the one fetch that is under way, or starts it; it goes on when whoever waits for it has left."""
        if known.asking is None:
            self._remember(known)
            known.asked_at = self._clock()
            self._fetches += 1
            known.asking = asyncio.create_task(self._read(known))
        return asyncio.shield(known.asking)

    async def _read(self, known: "_IssuerState") -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = keys_from_jwks(await self._sets.fetch(known.location), self._accepted)
        except DocumentNotFound:
            # One that had keys a moment ago may be back in another.
            known.absent_seconds = ABSENT_SECONDS if known.keys is None else ASK_AGAIN_SECONDS
            known.keys, known.absent, known.failure = None, True, None
        except (FetchError, TimeoutError, ValueError) as error:
            known.absent, known.failure = False, (str(error) or type(error).__name__)[:MAX_FAILURE]
            _log.warning("keys not fetched", extra={"issuer": known.location, "cause": known.failure})
        else:
            known.learn(keys, self._clock())
            self._make_room()
        finally:
            known.asking = None
            self._fetches -= 1


class _IssuerState:
    """What is known of one issuer."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.keys: Mapping[str | None, Key] | None = None  # of the last good answer
        self.read_at = self.asked_at = float("-inf")
        self.absent = False
        self.absent_seconds = ABSENT_SECONDS
        self.failure: str | None = None  # why the last fetch gave nothing
        self.asking: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """The number of its keys."""
        return len(self.keys or ())

    def key(self, key_id: str | None) -> Key | None:
        """The key with this identifier; without one, the only key that there is."""
        keys = self.keys or {}
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        return keys.get(key_id)

    def learn(self, keys: Mapping[str | None, Key], now: float) -> None:
        """Takes over a good answer. A key that has not changed stays the same object: tokens are remembered with it."""
        before = self.keys or {}
        self.keys = {
            key_id: old
            if (old := before.get(key_id)) and (old.material, old.algorithms) == (key.material, key.algorithms)
            else key
            for key_id, key in keys.items()
        }
        self.read_at, self.absent, self.failure = now, False, None


class JwksFetcher:
    """JWK Sets over HTTPS. TLS is verified with the system's authorities (`SSL_CERT_FILE` names others).

    With `discover`, a location is an issuer, whose discovery document names the address of the set; otherwise it is
    the address.
    """

    def __init__(self, *, discover: bool) -> None:
        self._discover = discover
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,  # no variable of the environment sends the requests elsewhere
            follow_redirects=False,
            timeout=FETCH_SECONDS,
            # A hung issuer keeps a connection, and may not keep the others from theirs.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def fetch(self, location: str) -> object:
        """The JWK Set of `location`. Raises FetchFailed; its kind NoSuchDocument where there is no such issuer."""
        address = await self._discovered(location) if self._discover else location
        try:
            return await self._get(address)
        except DocumentNotFound as error:
            raise FetchError(f"there are no keys at {address}") from error

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _discovered(self, issuer: str) -> str:
        """The `jwks_uri` of OpenID Connect Discovery 1.0, sections 3 and 4."""
        document = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != issuer:
            raise FetchError("the discovery document names another issuer")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not is_trusted_address(address):
            raise FetchError(
                f"the discovery document's jwks_uri is not an https URL of at most {MAX_ADDRESS_CHARACTERS} characters"
            )
        return address

    async def _get(self, address: str) -> Any:
        """The document at `address`. Raises FetchFailed for anything but one JSON value of at most 256 KiB."""
        try:
            async with self._client.stream("GET", address) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise DocumentNotFound(f"{address} answered 404")
                if response.status_code != httpx.codes.OK:
                    raise FetchError(f"{address} answered {response.status_code}")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise FetchError(f"{address} answered in a coding that was not asked for")
                content = await _bounded(response)
            return json.loads(content)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError(f"{address}: {type(error).__name__} {error}") from error
        except (ValueError, RecursionError) as error:
            raise FetchError(f"{address} answered what is no JSON") from error


async def _bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_DOCUMENT_BYTES:
            raise FetchError(f"{response.url} answered more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(content)


def is_trusted_address(address: str) -> bool:
    """Return True for an https URL, or an http URL of this machine, without a user and a password.

    It has to be short and in ASCII, as RFC 3986 defines URLs. `urlsplit` normalizes any other host, and the time that
    takes grows with the square of its length.
    """
    if len(address) > MAX_ADDRESS_CHARACTERS or not address.isascii():
        return False
    try:
        url = urlsplit(address)
        if url.fragment or url.port == 0 or url.username is not None:
            return False
    except ValueError:  # of the host, or the port
        return False
    loopback = url.hostname in {"localhost", "127.0.0.1", "::1"}
    return bool(url.hostname) and (url.scheme == "https" or (url.scheme == "http" and loopback))
