import asyncio
import time
import tracemalloc
from collections.abc import Iterator

import jwt
import pytest

from app.auth.jwks import JwksFetcher, JwksKeySource
from app.auth.keys import Key, StaticKeySource
from app.auth.token_cache import TokenCache
from app.auth.tokens import TokenVerifier, VerifiedToken
from app.errors import Unauthorized
from app.model import Principal
from tests.clock import Clock
from tests.conftest import Run
from tests.processes import SECRET, make_token
from tests.provider import RSA_KEYS, Provider, jwk


class CountingVerifier(TokenVerifier):
    """A verifier that counts its calls."""

    verified = 0

    async def verify(self, token: str) -> VerifiedToken:
        self.verified += 1
        return await super().verify(token)


class CacheHarness:
    """A token cache with a counting verifier, and a clock that the test moves."""

    def __init__(self, *, max_tokens: int = 100, leeway: float = 0.0) -> None:
        self.verifier = CountingVerifier(StaticKeySource((Key(SECRET, ("HS256",)),)), leeway=leeway)
        self.clock = Clock(time.time())
        self.tokens = TokenCache(self.verifier, max_tokens=max_tokens, clock=self.clock)

    def verify(self, token: str) -> Principal:
        return (self.tokens.get(token) or asyncio.run(self.tokens.verify(token))).principal


def test_a_token_is_verified_once() -> None:
    cache, token = CacheHarness(), make_token("acme")
    assert {cache.verify(token) for _ in range(5)} == {Principal("acme", "tester")}
    assert cache.verifier.verified == 1


def test_cached_token_ends_at_its_expiry() -> None:
    cache = CacheHarness()
    token = make_token("acme", exp=int(cache.clock.now) + 60)
    cache.verify(token)
    cache.clock.now += 61
    assert cache.tokens.get(token) is None


def test_leeway_extends_a_cached_token() -> None:
    cache = CacheHarness(leeway=10)
    token = make_token("acme", exp=int(cache.clock.now) + 60)
    cache.verify(token)
    cache.clock.now += 65
    assert cache.tokens.get(token) is not None
    cache.clock.now += 10
    assert cache.tokens.get(token) is None


def test_rejected_token_is_not_cached() -> None:
    cache = CacheHarness()
    for _ in range(2):
        with pytest.raises(Unauthorized):
            cache.verify(make_token("acme", exp=1))
    assert cache.verifier.verified == 2


def test_cache_is_bounded_and_evicts_the_oldest_token() -> None:
    cache = CacheHarness(max_tokens=3)
    tokens = [make_token(f"tenant-{n}") for n in range(10)]
    for token in tokens:
        cache.verify(token)
    assert [cache.tokens.get(token) is not None for token in tokens] == [False] * 7 + [True] * 3


def test_cached_token_uses_bounded_memory() -> None:
    number, issuer = 300, "https://id.example.net/realms/{tenant}"
    verifier = TokenVerifier(
        StaticKeySource((Key(SECRET, ("HS256",)),)), issuer=issuer, scopes={"oms:read", "oms:write"}
    )
    cache = TokenCache(verifier)
    claims = {
        "sub": "\U0001f600" * 255,
        "scope": " ".join(map(str, range(800))) + " oms:read",
        "scp": ["oms:write", [1], {}],
        "jti": "x" * 3000,
        "other": [[number] for number in range(100)],
    }
    tokens = [make_token(None, iss=issuer.format(tenant=f"{n:a>63}"), **claims) for n in range(number)]

    async def fill() -> None:
        for token in tokens:
            assert len((await cache.verify(token)).principal.scopes) == 2

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        asyncio.run(fill())
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(map(cache.get, tokens))
    assert (after - before) / number < 2048


def test_cache_does_not_hold_the_token_itself() -> None:
    cache, token = CacheHarness(), make_token("acme")
    cache.verify(token)
    assert token not in repr(vars(cache.tokens))


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        provider.publish("acme", jwk(RSA_KEYS[0], kid="first"))
        yield provider


def test_cached_token_ends_with_the_key_that_verified_it(run: Run, provider: Provider) -> None:
    async def withdraw() -> None:
        clock = Clock(time.time())
        keys = JwksKeySource(JwksFetcher(discover=True), ["RS256"], 300, clock=clock)
        verifier = CountingVerifier(keys, issuer=provider.template)
        tokens = TokenCache(verifier)
        token = provider.token("acme")
        await tokens.verify(token)
        assert tokens.get(token) is not None
        clock.now += 301  # the key must be fetched again before it is trusted
        assert tokens.get(token) is None
        await tokens.verify(token)
        assert tokens.get(token) is not None
        provider.publish("acme", jwk(RSA_KEYS[1], kid="first"))
        clock.now += 301
        with pytest.raises(Unauthorized):
            await tokens.verify(token)
        assert tokens.get(token) is None
        await verifier.close()

    run(withdraw())


def test_cached_claims_signed_with_another_secret_are_rejected() -> None:
    cache = CacheHarness()
    cache.verify(make_token("acme", exp=2000000000))
    with pytest.raises(Unauthorized):
        cache.verify(jwt.encode({"tenant": "acme", "sub": "tester", "exp": 2000000000}, "x" * 32))
