"""Tokens over HTTP. `tests/auth` has the tests of the tokens themselves."""

import time
import tracemalloc
from typing import Any

import pytest

from app.auth.keys import Key, StaticKeySource
from app.auth.token_cache import TokenCache
from app.auth.tokens import TokenVerifier
from app.web.context import request_context
from app.web.contract.security import BearerSecurity, Permissions
from tests.conftest import Run
from tests.contract import PATH, Client
from tests.processes import SECRET, Service, make_token

CHALLENGE = 'Bearer realm="external-oms-config"'


def test_no_token_is_a_401_with_a_bare_challenge(service: Service) -> None:
    answer = service.client(None).get()
    assert (answer.status, answer.headers["www-authenticate"]) == (401, CHALLENGE)
    assert answer.json["message"] == "A bearer token is required."


def test_rejected_token_is_a_401_with_the_reason(service: Service) -> None:
    answer = service.client(make_token("acme", exp=int(time.time()) - 1)).get()
    assert answer.status == 401
    expected = f'{CHALLENGE}, error="invalid_token", error_description="The token has expired."'
    assert answer.headers["www-authenticate"] == expected
    assert answer.json["message"] == "The token has expired."


@pytest.mark.parametrize(
    "authorization",
    [
        b"", b" ", b"Bearer", b"Bearer ", b"Bearer  ", b"Basic YTpi", b"bearer", b"Bearer x", b"Bearer a b", b"Token x",
        b"Bearer a.b.c", b"Bearer " + b"." * 3000, b"Bearer \xff", b"Bearer " + b"eyJ" * 5000, b'"Bearer" x',
        b"Bearer,x", b"Bearer\tx",
    ],
)  # fmt: skip
def test_malformed_authorization_is_a_401(service: Service, authorization: bytes) -> None:
    for method in (b"GET ", b"POST "):
        head = method + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + authorization + b"\r\n\r\n"
        assert service.client(None).raw(head)[0].status == 401


def test_scheme_is_accepted_in_any_case_and_spacing(service: Service, tenant: str) -> None:
    for scheme in ("bearer", "BEARER", "Bearer  "):
        headers = {"Authorization": f"{scheme} {make_token(tenant)}"}
        assert service.client(None).get(headers=headers).status == 200


def test_two_authorization_headers_are_a_401(client: Client) -> None:
    head = b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n%AUTH%\r\n\r\n"
    assert client.raw(head)[0].status == 401


def test_token_in_the_query_is_ignored(service: Service) -> None:
    assert service.client(None).get(params={"access_token": make_token("acme")}).status == 401


def test_missing_token_is_a_401_before_the_body_is_checked(service: Service) -> None:
    assert service.client(None).post(b"nonsense").status == 401


def test_a_request_holds_no_second_copy_of_its_token(run: Run) -> None:
    tokens = TokenCache(TokenVerifier(StaticKeySource((Key(SECRET, ("HS256",)),))))
    token = make_token("acme", padding="x" * 10_000)
    verified = run(tokens.verify(token))
    security = BearerSecurity(tokens, Permissions())
    headers = [(b"authorization", f"Bearer {token}".encode())]
    scopes: list[Any] = [{"headers": headers} for _ in range(100)]

    async def check() -> None:
        for scope in scopes:
            await security.check(scope, "")

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run(check())
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(scopes) < len(token) / 4
    expiry: Any = request_context(scopes[0]).token_expiry
    assert run(expiry()) == verified.expires_at


def test_page_and_contract_need_no_token(service: Service) -> None:
    for path in ("/openapi.yaml", "/v0/ui/"):
        assert service.client(None).request("GET", path).status == 200
