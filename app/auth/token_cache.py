"""Tokens that were verified, remembered: verifying is the dearest part of a read."""

import hashlib
import time
from collections.abc import Callable
from typing import Final

from app.auth.tokens import TokenVerifier, VerifiedToken

# At most 2 KiB each, 16 MiB for a worker: `TokenVerifier` bounds all that it keeps of a token.
MAX_TOKENS: Final = 8192


class TokenCache:
    """Verifies a token once, and remembers it by its digest (SHA-256), never by itself.

    What is remembered ends with the token's `exp` and with the key that verified it. It is bounded: the oldest goes
    first. `clock` gives seconds since 1970.
    """

    def __init__(
        self, verifier: TokenVerifier, *, max_tokens: int = MAX_TOKENS, clock: Callable[[], float] = time.time
    ) -> None:
        self._verifier = verifier
        self._max_tokens = max_tokens
        self._clock = clock
        self._verified: dict[bytes, VerifiedToken] = {}

    def get(self, token: str) -> VerifiedToken | None:
        """What a token says that is known to be good; None for any other, which has to be verified."""
        verified = self._verified.get(_digest(token))
        if verified is None or not self._verifier.is_current(verified, self._clock()):
            return None
        return verified

    async def verify(self, token: str) -> VerifiedToken:
        """What any token says. Raises as `TokenVerifier.verify` does."""
        digest = _digest(token)
        self._verified.pop(digest, None)
        verified = await self._verifier.verify(token)
        if len(self._verified) >= self._max_tokens:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified
        return verified


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
