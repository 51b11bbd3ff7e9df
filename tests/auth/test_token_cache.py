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


class Counting(TokenVerifier):
    """A verifier that counts."""

    verified = 0

    async def verify(self, token: str) -> VerifiedToken:
        self.verified += 1
        return await super().verify(token)


class Memory:
    def __init__(self, *, max_tokens: int = 100, leeway: float = 0.0) -> None:
        self.verifier = Counting(StaticKeySource(Key(SECRET, ("HS256",))), leeway=leeway)
        self.clock = Clock(time.time())
        self.tokens = TokenCache(self.verifier, max_tokens=max_tokens, clock=self.clock)

    def verify(self, token: str) -> Principal:
        return (self.tokens.get(token) or asyncio.run(self.tokens.verify(token))).principal


def test_a_token_is_verified_once() -> None:
    memory, token = Memory(), make_token("acme")
    assert {memory.verify(token) for _ in range(5)} == {Principal("acme", "tester")}
    assert memory.verifier.verified == 1


def test_a_remembered_token_ends_with_its_expiry() -> None:
    memory = Memory()
    token = make_token("acme", exp=int(memory.clock.now) + 60)
    memory.verify(token)
    memory.clock.now += 61
    assert memory.tokens.get(token) is None


def test_leeway_counts_for_a_remembered_token_as_well() -> None:
    memory = Memory(leeway=10)
    token = make_token("acme", exp=int(memory.clock.now) + 60)
    memory.verify(token)
    memory.clock.now += 65
    assert memory.tokens.get(token) is not None
    memory.clock.now += 10
    assert memory.tokens.get(token) is None


def test_a_bad_token_is_not_remembered() -> None:
    memory = Memory()
    for _ in range(2):
        with pytest.raises(Unauthorized):
            memory.verify(make_token("acme", exp=1))
    assert memory.verifier.verified == 2


def test_the_memory_is_bounded_and_the_oldest_goes_first() -> None:
    memory = Memory(max_tokens=3)
    tokens = [make_token(f"tenant-{n}") for n in range(10)]
    for token in tokens:
        memory.verify(token)
    assert [memory.tokens.get(token) is not None for token in tokens] == [False] * 7 + [True] * 3


def test_the_memory_of_a_token_is_bounded_in_bytes() -> None:
    number, issuer = 300, "https://id.example.net/realms/{tenant}"
    verifier = TokenVerifier(StaticKeySource(Key(SECRET, ("HS256",))), issuer=issuer, scopes={"oms:read", "oms:write"})
    memory = TokenCache(verifier)
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
            assert len((await memory.verify(token)).principal.scopes) == 2

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        asyncio.run(fill())
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(map(memory.get, tokens))
    assert (after - before) / number < 2048


def test_no_token_stands_in_memory() -> None:
    memory, token = Memory(), make_token("acme")
    memory.verify(token)
    assert token not in repr(vars(memory.tokens))


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        provider.publish("acme", jwk(RSA_KEYS[0], kid="first"))
        yield provider


def test_a_remembered_token_ends_with_the_key_that_verified_it(run: Run, provider: Provider) -> None:
    async def withdraw() -> None:
        clock = Clock(time.time())
        keys = JwksKeySource(JwksFetcher(discover=True), ["RS256"], 300, clock=clock)
        verifier = Counting(keys, issuer=provider.template)
        tokens = TokenCache(verifier)
        token = provider.token("acme")
        await tokens.verify(token)
        assert tokens.get(token) is not None
        clock.now += 301  # nobody knows now whether the key is still good
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


def test_a_token_that_another_secret_signed_is_not_taken_for_a_remembered_one() -> None:
    memory = Memory()
    memory.verify(make_token("acme", exp=2000000000))
    with pytest.raises(Unauthorized):
        memory.verify(jwt.encode({"tenant": "acme", "sub": "tester", "exp": 2000000000}, "x" * 32))
