"""The token cache: verification is the most expensive part of a read."""

import hashlib
import time
from collections.abc import Callable
from typing import Final

from app.auth.tokens import TokenVerifier, VerifiedToken

# An entry takes at most 2 KiB, so the cache takes at most 16 MiB per worker. `TokenVerifier` limits an entry's size.
MAX_TOKENS: Final = 8192


class TokenCache:
    """Verifies each token once and caches the result under the token's SHA-256 digest. The token is not stored.

    An entry is valid until the token expires or the key that verified it is replaced. If the cache is full, the oldest
    entry is removed. `clock` returns seconds since 1970.
    """

    def __init__(
        self, verifier: TokenVerifier, *, max_tokens: int = MAX_TOKENS, clock: Callable[[], float] = time.time
    ) -> None:
        self._verifier = verifier
        self._max_tokens = max_tokens
        self._clock = clock
        self._verified: dict[bytes, VerifiedToken] = {}

    def get(self, token: str) -> VerifiedToken | None:
        """Return a cached token, or None if it is not cached or not valid any more. Call `verify` then."""
        verified = self._verified.get(_digest(token))
        if verified is None or not self._verifier.is_current(verified, self._clock()):
            return None
        return verified

    async def verify(self, token: str) -> VerifiedToken:
        """Verify a token and cache the result. Raises the same errors as `TokenVerifier.verify`."""
        digest = _digest(token)
        self._verified.pop(digest, None)
        verified = await self._verifier.verify(token)
        if len(self._verified) >= self._max_tokens:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified
        return verified


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
