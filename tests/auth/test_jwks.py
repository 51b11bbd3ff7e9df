"""Key sets from a real provider on real sockets. Only the clock is a fake."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from app.auth import jwks
from app.auth.jwks import (
    ABSENT_SECONDS,
    ASK_AGAIN_SECONDS,
    LOOKUP_SECONDS,
    MAX_CANDIDATES,
    MAX_FAILURE,
    MAX_LOOKUPS,
    OUTAGE_SECONDS,
    JwksFetcher,
    JwksKeySource,
)
from app.auth.keys import PUBLIC_KEY_ALGORITHMS, Key
from app.auth.tokens import TokenVerifier
from app.errors import KeyUnavailable, Unauthorized
from tests.clock import Clock
from tests.conftest import Run
from tests.processes import reserve_port
from tests.provider import RSA_KEYS, Behaviour, Provider, jwk
from tests.waiting import PATIENCE

TTL = 300.0
FIRST, SECOND = jwk(RSA_KEYS[0], kid="first"), jwk(RSA_KEYS[1], kid="second")


class Source:
    """A key source with a clock that the test moves."""

    def __init__(self, provider: Provider, *, location: str | None = None) -> None:
        self._provider = provider
        self._location = location
        self.clock = Clock(1000.0)

    async def __aenter__(self) -> "Source":
        sets = JwksFetcher(discover=self._location is None)
        self.keys = JwksKeySource(sets, PUBLIC_KEY_ALGORITHMS, TTL, location=self._location, clock=self.clock)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.keys.close()

    async def find(self, realm: str = "acme", key_id: str | None = "first", algorithm: object = "RS256") -> Key:
        (key,) = await self.candidates(realm, key_id, algorithm)
        return key

    async def candidates(self, realm: str, key_id: str | None, algorithm: object = "RS256") -> Sequence[Key]:
        return await self.keys.find(self._provider.issuer(realm), key_id, algorithm)

    def is_current(self, key: Key, realm: str = "acme") -> bool:
        return self.keys.is_current(self._provider.issuer(realm), key)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        provider.publish("acme", FIRST)
        yield provider


def test_the_keys_of_an_issuer_are_discovered_and_kept(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            key = await source.find()
            assert key.material.public_numbers() == RSA_KEYS[0].public_key().public_numbers()
            assert await source.find() is key
            assert source.is_current(key)
            assert not source.is_current(key, "other")

    run(find())
    assert provider.requests == ["/realms/acme/.well-known/openid-configuration", "/realms/acme/keys"]


def test_configured_key_set_address_serves_every_issuer(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider, location=provider.address("acme")) as source:
            assert await source.find("x") is await source.find("y")

    run(find())
    assert provider.requests == ["/realms/acme/keys"]


def test_token_without_kid_may_be_of_any_key_with_its_algorithm(run: Run, provider: Provider) -> None:
    provider.publish("many", FIRST, SECOND, jwk(RSA_KEYS[2], alg="RS512"), jwk(RSA_KEYS[2], use="enc"))

    async def find() -> None:
        async with Source(provider) as source:
            assert await source.find(key_id=None) is await source.find()
            assert [key.key_id for key in await source.candidates("many", None)] == ["first", "second"]

    run(find())


def test_number_of_candidates_is_bounded(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            keys = [jwk(ec.generate_private_key(ec.SECP256R1())) for _ in range(MAX_CANDIDATES + 1)]
            provider.publish("limit", *keys[1:])
            assert len(await source.candidates("limit", None, "ES256")) == MAX_CANDIDATES
            provider.publish("above", *keys)
            with pytest.raises(Unauthorized) as raised:
                await source.candidates("above", None, "ES256")
            assert raised.value.detail.startswith(f"{MAX_CANDIDATES + 1} keys of {provider.issuer('above')} fit")

    run(find())


def test_repeated_key_counts_once(run: Run, provider: Provider) -> None:
    provider.publish("acme", *[FIRST] * (MAX_CANDIDATES + 1))

    async def find() -> None:
        async with Source(provider) as source:
            assert (await source.find()).key_id == "first"

    run(find())


@pytest.mark.parametrize("declared", [True, False])
def test_keys_with_one_kid_are_chosen_by_algorithm(run: Run, provider: Provider, declared: bool) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    algorithms: dict[str, Any] = (
        {"RS256": RSA_KEYS[0], "RS512": RSA_KEYS[1]} if declared else {"RS256": RSA_KEYS[0], "ES256": curve}
    )
    keys = [jwk(key, kid="one", alg=name if declared else None) for name, key in algorithms.items()]
    provider.publish("acme", *keys)

    async def find() -> None:
        async with Source(provider) as source:
            for algorithm, key in algorithms.items():
                found = await source.find(key_id="one", algorithm=algorithm)
                assert found.material.public_numbers() == key.public_key().public_numbers()
                assert source.is_current(found)
            source.clock.now += TTL + 1
            assert await source.find(key_id="one", algorithm=algorithm) is found

    run(find())


def test_token_with_a_kid_may_be_of_a_key_without_one(run: Run, provider: Provider) -> None:
    provider.publish("acme", jwk(RSA_KEYS[0]), SECOND)

    async def find() -> None:
        async with Source(provider) as source:
            assert (await source.find(key_id="first")).key_id is None
            assert (await source.find(key_id="second")).key_id == "second"

    run(find())


@pytest.mark.parametrize("algorithm", ["HS256", "none", "RS1", None, ["RS256"], {}])
def test_unaccepted_algorithm_is_rejected_without_a_fetch(run: Run, provider: Provider, algorithm: object) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            with pytest.raises(Unauthorized, match="an algorithm that is not accepted"):
                await source.find(algorithm=algorithm)

    run(find())
    assert provider.requests == []


def test_key_set_may_have_its_own_media_type(run: Run, provider: Provider) -> None:
    provider.behaviours["acme"] = "own type"

    async def find() -> None:
        async with Source(provider) as source:
            assert (await source.find()).key_id == "first"

    run(find())


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (
            jwk(RSA_KEYS[0], kid="first", alg="RS1"),
            "an RSA key of 2048 bits with an exponent of 17 bits for the alg RS1",
        ),
        (jwk(RSA_KEYS[0], kid="first", use="enc"), "its use or key_ops is not for verifying signatures"),
        (None, "0 other keys are ignored"),
    ],
)
def test_log_says_why_a_key_set_has_no_usable_key(
    run: Run, provider: Provider, caplog: pytest.LogCaptureFixture, member: dict[str, object] | None, reason: str
) -> None:
    provider.publish("acme", *[member] if member else [])

    async def find() -> None:
        async with Source(provider) as source:
            with pytest.raises(Unauthorized) as raised:
                await source.find()
            assert reason in raised.value.detail
            assert reason not in str(raised.value)

    with caplog.at_level(logging.WARNING):
        run(find())
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["issuer"]) == ("no usable keys", provider.issuer("acme"))
    assert reason in record.__dict__["cause"]


def test_rejection_names_the_keys_that_are_ignored_in_bounded_text(run: Run, provider: Provider) -> None:
    provider.publish("acme", FIRST, *[jwk(RSA_KEYS[1], kid="second", alg=["x" * 2000])] * 90)

    async def find() -> None:
        async with Source(provider) as source:
            with pytest.raises(Unauthorized) as raised:
                await source.find(key_id="second")
            detail = raised.value.detail
            assert "90 other keys are ignored: key 2: it is an RSA key" in detail
            assert len(detail) < MAX_FAILURE + 200

    run(find())


def test_rotated_key_replaces_the_withdrawn_one(run: Run, provider: Provider) -> None:
    async def rotate() -> None:
        async with Source(provider) as source:
            first = await source.find()
            provider.publish("acme", SECOND)
            assert source.is_current(first)  # no lookup has fetched the keys again yet
            source.clock.now += TTL + 1
            assert not source.is_current(first)
            second = await source.find(key_id="second")
            assert source.is_current(second)
            with pytest.raises(Unauthorized):
                await source.find()

    run(rotate())


@pytest.mark.parametrize(
    ("before", "after", "kid"),
    [
        ([jwk(RSA_KEYS[0]), SECOND], [jwk(RSA_KEYS[0]), SECOND, jwk(RSA_KEYS[2], kid="new")], "new"),
        ([jwk(RSA_KEYS[0])], [jwk(RSA_KEYS[2])], "new"),
        ([jwk(RSA_KEYS[0])], [jwk(RSA_KEYS[2])], None),
        ([jwk(RSA_KEYS[0])], [jwk(RSA_KEYS[0]), jwk(RSA_KEYS[2])], None),
        ([FIRST], [FIRST, jwk(RSA_KEYS[2], kid="new")], None),
        ([FIRST], [jwk(RSA_KEYS[2], kid="first")], "first"),
    ],
)
def test_keys_are_fetched_again_if_none_has_signed_a_token(
    run: Run, provider: Provider, before: list[dict[str, Any]], after: list[dict[str, Any]], kid: str | None
) -> None:
    provider.publish("acme", *before)

    async def rotate() -> None:
        async with Source(provider) as source:
            verifier = TokenVerifier(source.keys, issuer=provider.template)
            old, new = (provider.token("acme", key, kid=kid) for key in (RSA_KEYS[0], RSA_KEYS[2]))
            await verifier.verify(old)
            provider.publish("acme", *after)
            source.clock.now += ASK_AGAIN_SECONDS
            await verifier.verify(old)
            assert len(provider.requests) == 2
            await verifier.verify(new)
            assert len(provider.requests) == 4

    run(rotate())


def test_wrong_signatures_cause_one_fetch_per_interval(run: Run, provider: Provider) -> None:
    async def flood() -> None:
        async with Source(provider) as source:
            verifier = TokenVerifier(source.keys, issuer=provider.template)
            for n in range(100):
                with pytest.raises(Unauthorized, match="signature does not match"):
                    await verifier.verify(provider.token("acme", RSA_KEYS[1], jti=str(n)))
            assert len(provider.requests) == 2
            source.clock.now += ASK_AGAIN_SECONDS
            with pytest.raises(Unauthorized, match="signature does not match"):
                await verifier.verify(provider.token("acme", RSA_KEYS[1]))
            assert len(provider.requests) == 4

    run(flood())


def test_unchanged_key_is_the_same_object_after_a_refresh(run: Run, provider: Provider) -> None:
    async def renew() -> None:
        async with Source(provider) as source:
            first = await source.find()
            source.clock.now += TTL + 1
            assert await source.find() is first
            provider.publish("acme", jwk(RSA_KEYS[1], kid="first"))
            source.clock.now += TTL + 1
            assert await source.find() is not first
            assert not source.is_current(first)

    run(renew())


def test_unknown_kid_causes_one_fetch_per_interval(run: Run, provider: Provider) -> None:
    async def flood() -> None:
        async with Source(provider) as source:
            await source.find()
            source.clock.now += ASK_AGAIN_SECONDS
            provider.publish("acme", FIRST, SECOND)
            await source.find(key_id="second")
            for n in range(300):
                with pytest.raises(Unauthorized):
                    await source.find(key_id=f"invented-{n}")
            assert len(provider.requests) == 4
            source.clock.now += ASK_AGAIN_SECONDS
            with pytest.raises(Unauthorized):
                await source.find(key_id="invented")
            assert len(provider.requests) == 6

    run(flood())


def test_concurrent_lookups_of_one_issuer_share_a_fetch(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            keys = await asyncio.gather(*(source.find() for _ in range(100)))
            assert len(set(map(id, keys))) == 1

    run(find())
    assert len(provider.requests) == 2


def test_cancelled_lookup_does_not_cancel_the_shared_fetch(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            leaving, staying = asyncio.create_task(source.find()), asyncio.create_task(source.find())
            await asyncio.sleep(0)
            leaving.cancel()
            await staying

    run(find())


CAUSES: dict[Behaviour, str] = {
    "hang": "TimeoutError",
    "drip": "TimeoutError",
    "html": "answered with a body that is not JSON",
    "huge": "answered with more than 262144 bytes",
    "30 MB": "answered with more than 262144 bytes",
    "unpacks": "answered with a Content-Encoding that was not requested",
    "redirect": "answered 302",
    "error": "answered 503",
    "lie": "the discovery document has another issuer: 'http://127.0.0.1:",
    "plain": "the discovery document's jwks_uri is not an https URL",
    "empty": "answered with a body that is not JSON",
    "deep": "answered with a body that is not JSON",
    "no keys": "/keys answered 404",
    "far": "jwks_uri is not an https URL of at most 2048 characters",
    "101 keys": "the JWK Set has 101 keys; expected at most 100",
    "garbage": "illegal header line",
}


def misbehave(provider: Provider, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour) -> None:
    """Set the behaviour of the provider. The time limit of a fetch is short only if the provider never answers."""
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.3 if behaviour in {"hang", "drip"} else PATIENCE)
    provider.behaviours["acme"] = behaviour


@pytest.mark.parametrize("behaviour", CAUSES)
def test_issuer_that_fails_from_the_start_makes_its_key_unavailable(
    run: Run,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: Behaviour,
    caplog: pytest.LogCaptureFixture,
) -> None:
    misbehave(provider, monkeypatch, behaviour)

    async def find() -> None:
        async with Source(provider) as source:
            for _ in range(3):
                with pytest.raises(KeyUnavailable):
                    await source.find()
            asked = len(provider.requests)
            misbehave(provider, monkeypatch, "good")
            with pytest.raises(KeyUnavailable):
                await source.find()
            assert len(provider.requests) == asked  # the last fetch was a moment ago
            source.clock.now += ASK_AGAIN_SECONDS
            await source.find()

    with caplog.at_level(logging.WARNING):
        run(find())
    assert [record.__dict__["issuer"] for record in caplog.records] == [provider.issuer("acme")]
    assert CAUSES[behaviour] in caplog.records[0].__dict__["cause"]
    assert len(caplog.records[0].__dict__["cause"]) <= MAX_FAILURE


@pytest.mark.parametrize("behaviour", CAUSES)
def test_known_keys_outlive_an_outage_of_limited_length(
    run: Run, provider: Provider, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour
) -> None:
    misbehave(provider, monkeypatch, "good")

    async def outage() -> None:
        async with Source(provider) as source:
            key = await source.find()
            misbehave(provider, monkeypatch, behaviour)
            source.clock.now += TTL + 1
            assert await source.find() is key
            source.clock.now += OUTAGE_SECONDS - 2
            assert await source.find() is key
            with pytest.raises(Unauthorized):
                await source.find(key_id="other")
            source.clock.now += 10
            with pytest.raises(KeyUnavailable):
                await source.find()
            misbehave(provider, monkeypatch, "good")
            source.clock.now += ASK_AGAIN_SECONDS
            assert await source.find() is key
            assert source.is_current(key)

    run(outage())


def test_only_the_first_lookup_waits_during_an_outage(
    run: Run, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def outage() -> None:
        async with Source(provider) as source:
            key = await source.find()
            misbehave(provider, monkeypatch, "hang")
            source.clock.now += TTL + 1
            await source.find()
            monkeypatch.setattr(jwks, "FETCH_SECONDS", 3600)
            source.clock.now += ASK_AGAIN_SECONDS
            async with asyncio.timeout(PATIENCE):
                for _ in range(10):
                    assert await source.find() is key

    run(outage())


def test_hanging_issuer_does_not_delay_another(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            provider.behaviours |= {f"hung-{n}": "hang" for n in range(MAX_LOOKUPS - 1)}
            hung = [asyncio.create_task(source.find(f"hung-{n}")) for n in range(MAX_LOOKUPS - 1)]
            await asyncio.sleep(0)
            await source.find()
            assert not any(task.done() for task in hung)
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)

    run(find())


def test_absence_of_an_issuer_is_cached_for_a_while(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            for _ in range(5):
                with pytest.raises(Unauthorized) as raised:
                    await source.find("nobody")
            assert raised.value.detail.startswith(f"{provider.issuer('nobody')} has no discovery document")
            assert len(provider.requests) == 1
            provider.publish("nobody", FIRST)
            source.clock.now += ABSENT_SECONDS
            await source.find("nobody")

    run(find())


def test_removed_issuer_invalidates_its_keys(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            key = await source.find()
            del provider.sets["acme"]
            source.clock.now += TTL + 1
            with pytest.raises(Unauthorized):
                await source.find()
            assert not source.is_current(key)
            provider.publish("acme", FIRST)  # it was missing only for a moment
            source.clock.now += ASK_AGAIN_SECONDS
            await source.find()

    run(find())


def test_flood_of_invented_issuers_is_bounded_and_spares_known_ones(run: Run, provider: Provider) -> None:
    async def flood() -> None:
        async with Source(provider) as source:
            await source.find()
            rejected = {Unauthorized: 0, KeyUnavailable: 0}
            for n in range(500):
                with pytest.raises((Unauthorized, KeyUnavailable)) as raised:
                    await source.find(f"invented-{n}")
                rejected[raised.type] += 1
                await source.find()
            assert rejected == {Unauthorized: MAX_LOOKUPS - 1, KeyUnavailable: 500 - MAX_LOOKUPS + 1}
            assert len(provider.requests) == 2 + MAX_LOOKUPS - 1
            source.clock.now += LOOKUP_SECONDS
            provider.publish("new", FIRST)
            await source.find("new")

    run(flood())


def test_flood_of_invented_issuers_spares_an_idle_known_one(run: Run, provider: Provider) -> None:
    async def flood() -> None:
        async with Source(provider) as source:
            await source.find()
            source.clock.now += TTL + OUTAGE_SECONDS + 1
            for n in range(MAX_LOOKUPS + 5):
                with pytest.raises((Unauthorized, KeyUnavailable)):
                    await source.find(f"invented-{n}")
            await source.find()

    run(flood())


def test_new_issuer_that_fails_makes_its_key_unavailable(run: Run, provider: Provider) -> None:
    async def find() -> None:
        async with Source(provider) as source:
            with pytest.raises(Unauthorized):
                await source.find("late")
            provider.publish("late", FIRST)
            provider.behaviours["late"] = "error"
            source.clock.now += ABSENT_SECONDS
            with pytest.raises(KeyUnavailable):
                await source.find("late")
            provider.behaviours["late"] = "good"
            source.clock.now += ASK_AGAIN_SECONDS
            await source.find("late")

    run(find())


def test_key_limit_evicts_issuers_without_keys_first(
    run: Run, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "MAX_KEYS_KEPT", 3)

    async def fill() -> None:
        async with Source(provider) as source:
            key = await source.find()
            for n in range(10):
                with pytest.raises(Unauthorized):
                    await source.find(f"invented-{n}")
            assert source.is_current(key)
            assert len(vars(source.keys)["_issuers"]) == 3

    run(fill())


def test_key_limit_evicts_the_least_recently_used_issuers(
    run: Run, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "MAX_KEYS_KEPT", 4)
    for realm in ("idle", "other", "late"):
        provider.publish(realm, FIRST)
    provider.publish("many", FIRST, SECOND)

    async def fill() -> None:
        async with Source(provider) as source:
            kept = {realm: await source.find(realm) for realm in ("acme", "idle", "other", "acme", "many")}
            assert [realm for realm in kept if source.is_current(kept[realm], realm)] == ["acme", "other", "many"]
            kept["late"] = await source.find("late")
            assert [realm for realm in kept if source.is_current(kept[realm], realm)] == ["acme", "many", "late"]
            assert await source.find("idle") is not kept["idle"]

    run(fill())


def test_concurrent_fetches_are_bounded_and_known_keys_stay_usable(
    run: Run, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "MAX_FETCHES", 1)
    provider.publish("new", FIRST)
    provider.behaviours["hung"] = "hang"

    async def fetch() -> None:
        async with Source(provider) as source:
            key = await source.find()
            source.clock.now += TTL + 1
            hung = asyncio.create_task(source.find("hung"))
            await asyncio.sleep(0)
            assert await source.find() is key
            with pytest.raises(KeyUnavailable, match="too many key sets are being fetched"):
                await source.find("new")
            assert not hung.done()
            hung.cancel()
            monkeypatch.setattr(jwks, "MAX_FETCHES", 2)
            await source.find("new")

    run(fetch())


def test_tls_is_verified(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))

    async def find(provider: Provider) -> None:
        async with Source(provider) as source:
            await source.find()

    with Provider(authority) as provider:
        provider.publish("acme", FIRST)
        with pytest.raises(KeyUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            run(find(provider))
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        run(find(provider))


def test_failure_names_the_reason_of_the_system(run: Run, provider: Provider) -> None:
    refused, plain = f"http://127.0.0.1:{reserve_port()}", provider.base.replace("http://", "https://")

    async def failure(address: str) -> str:
        async with Source(provider, location=f"{address}/keys?code=s3cret") as source:
            with pytest.raises(KeyUnavailable) as raised:
                await source.find()
            return str(raised.value)

    assert run(failure(refused)) == f"no keys of {refused}/keys: {refused}/keys: ConnectError Connection refused"
    assert "ConnectError [SSL: WRONG_VERSION_NUMBER] wrong version number" in run(failure(plain))


@pytest.mark.parametrize("behaviour", ["error", "html", "huge", "redirect", "unpacks", "garbage"])
def test_query_of_an_address_is_not_shown(
    run: Run, provider: Provider, behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    provider.behaviours["acme"] = behaviour

    async def find() -> str:
        async with Source(provider, location=f"{provider.address('acme')}?code=s3cret") as source:
            with pytest.raises(KeyUnavailable) as raised:
                await source.find()
            return str(raised.value)

    assert f"no keys of {provider.address('acme')}: " in run(find())
    assert "s3cret" not in caplog.text + str([record.__dict__ for record in caplog.records])


def test_proxy_variables_are_ignored(run: Run, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")

    async def find() -> None:
        async with Source(provider) as source:
            await source.find()

    run(find())


def test_closing_cancels_pending_lookups(run: Run, provider: Provider) -> None:
    async def close() -> None:
        provider.behaviours["acme"] = "hang"
        async with Source(provider) as source:
            task = asyncio.create_task(source.find())
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(close())
