"""Cost of all code that reads bytes from outside: eight times the input may cost about eight times as much.

Quadratic code costs 64 times as much. The limit between the two leaves room for a loaded machine.
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx
import jwt
import pytest
from redis.exceptions import NoPermissionError

from app.auth.jwks import is_trusted_address
from app.auth.keys import Key, StaticKeySource, keys_from_jwks
from app.auth.tokens import TokenVerifier
from app.cli.client import ApiClient
from app.cli.output import ChangeRecord, printable, row
from app.errors import StoreError
from app.logs import formatter
from app.preflight.findings import findings
from app.preflight.inspection import ServerFacts, failure_reason
from app.store.redis_store import RedisStore
from app.store.redis_url import Address
from app.web.bearer_token import bearer_token
from app.web.context import request_context
from app.web.contract.json_body import parse
from app.web.etags import if_match, is_not_modified
from app.web.middleware.trace_context import trace_of
from app.web.ofrep import EvaluationCode, error_fields, is_ofrep
from bench.processes import cpu_seconds
from tests.contract import HISTORY_PATH, PATH, Wire
from tests.hostile import SHAPES, disproportionate, seconds
from tests.processes import SECRET, Service, make_token

# Below these costs, the clock measures the call and not the input.
MIN_SECONDS: Final = 0.0002
MIN_REQUEST_SECONDS: Final = 0.002


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def result_of(coroutine: Any) -> Any:
    """Return the result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine suspended")


# --- Requests and their tokens


def header(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value)]


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(claims: bytes, protected: bytes = b'{"alg":"HS256"}') -> str:
    signing_input = base64url(protected) + b"." + base64url(claims)
    signature = hmac.digest(SECRET.encode(), signing_input, hashlib.sha256)
    return (signing_input + b"." + base64url(signature)).decode()


VERIFIER = TokenVerifier(StaticKeySource(Key(SECRET, ("HS256",))))
REALM_VERIFIER = TokenVerifier(StaticKeySource(Key(SECRET, ("HS256",))), issuer="https://id.example/{tenant}/x")


def verify(token: str) -> None:
    result_of(VERIFIER.verify(token))


def verify_of_realm(data: bytes) -> None:
    result_of(REALM_VERIFIER.verify(jwt.encode({"exp": 2**40, "iss": f"https://id.example/{text(data)}"}, SECRET)))


def claim(name: str) -> Callable[[bytes], object]:
    return lambda data: verify(make_token("acme", **{name: text(data)}))


def ofrep_error(data: bytes) -> None:
    path = f"/ofrep/v1/evaluate/flags/{text(data)}"
    error_fields({"path": path}, 404, EvaluationCode.GENERAL, "")
    is_ofrep({"raw_path": quote(path).encode()})


REQUEST_PARSERS: Mapping[str, Callable[[bytes], object]] = {
    "If-Match": lambda data: if_match(header(b"if-match", data)),
    "If-Match in several lines": lambda data: if_match([(b"if-match", each) for each in data.split(b",")]),
    "If-None-Match": lambda data: is_not_modified(header(b"if-none-match", data), 1),
    "traceparent": lambda data: trace_of({"headers": header(b"traceparent", data)}),
    "X-Request-ID": lambda data: request_context({"headers": header(b"x-request-id", data)}),
    "Authorization": lambda data: bearer_token(header(b"authorization", b"Bearer " + data)),
    "body": parse,
    "body's text": lambda data: parse(json.dumps({"a": text(data)}).encode()),
    "path of a flag": ofrep_error,
    "token": lambda data: verify(data.decode("latin-1")),
    "token's header": lambda data: verify(signed(b"{}", data)),
    "token's key identifier": lambda data: verify(jwt.encode({}, SECRET, headers={"kid": text(data)})),
    "token's claims": lambda data: verify(signed(data)),
    "token's signature": lambda data: verify(f"{make_token('acme').rpartition('.')[0]}.{data.decode('latin-1')}"),
    "token's tenant": lambda data: verify(make_token(text(data))),
    "token's sub": claim("sub"),
    "token's scope": claim("scope"),
    "token's scp": lambda data: verify(make_token("acme", scp=text(data).split(" "))),
    "token's issuer": verify_of_realm,
}


# --- Responses of the store and of an identity provider


class OneValue:
    """A `Topology` that returns the same value for every key."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    async def read(self, _key: str, _limit: float) -> bytes:
        return self._value


def read_stored(value: bytes) -> None:
    result_of(RedisStore(OneValue(value), 1.0, 100).current("acme"))  # type: ignore[arg-type]  # the store uses only `read`


def stored_text(data: bytes) -> bytes:
    return json.dumps({"enabled": True, "version": 1, "at": 0, "by": text(data), "request": "r", "id": "i"}).encode()


def rejected_command(data: bytes) -> None:
    error = StoreError("the change was rejected")
    error.__cause__ = NoPermissionError(f"this user has no permission to run '{text(data)}")
    failure_reason(error)


def reported_policy(data: bytes) -> None:
    facts = ServerFacts(
        server="a:1", role="primary", maxmemory_policy=text(data), appendonly=True, appendfsync="always", replicas=1
    )  # fmt: skip
    findings([facts], Address(hosts=(("localhost", 1),)), tls_verify=True)


_NUMBERS = itertools.count()  # `urlsplit` caches its results


def key_with(**members: str) -> Callable[[bytes], object]:
    """Return a function that reads a key set: one key, valid except for one member with the input."""
    name = next(iter(members))
    good = {"kty": "RSA", "e": "AQAB", "n": "u" * 342, "kid": "1", **members}
    return lambda data: keys_from_jwks({"keys": [good | {name: text(data)}]}, ["RS256", "ES256", "EdDSA"])


def many_keys(data: bytes) -> None:
    keys_from_jwks({"keys": [{"kid": text(data[start : start + 8])} for start in range(0, len(data), 8)]}, ["RS256"])


STORE_AND_PROVIDER_PARSERS: Mapping[str, Callable[[bytes], object]] = {
    "stored value": read_stored,
    "stored text": lambda data: read_stored(stored_text(data)),
    "command that the store rejects": rejected_command,
    "policy that the store reports": reported_policy,
    "key set of many keys": many_keys,
    "key's identifier": key_with(kid=""),
    "key's modulus": key_with(n=""),
    "key's exponent": key_with(e=""),
    "key's curve": key_with(crv="", kty="EC", x="", y=""),
    "key's point": key_with(x="", kty="OKP", crv="Ed25519"),
    "address of a key set": lambda data: is_trusted_address(f"https://{next(_NUMBERS)}{text(data)}"),
    "path of a key set": lambda data: is_trusted_address(f"https://id.example/{text(data)}"),
}


# --- Responses to the command


class FakeTransport(httpx.AsyncBaseTransport):
    """Answers every request with the same status, headers and body, in parts of `part_size` bytes."""

    part_size = 256

    def __init__(self) -> None:
        self.response: tuple[int, dict[str, bytes], bytes] = (200, {}, b"")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self.response
        return httpx.Response(
            status,
            headers=[(name.encode(), value) for name, value in headers.items()],
            stream=Parts(body, self.part_size),
        )


class Parts(httpx.AsyncByteStream):
    def __init__(self, body: bytes, size: int) -> None:
        self._body = body
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), self._size):
            yield self._body[start : start + self._size]


class Command:
    """The command's client with a fake transport, which sends the given response."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.transport = FakeTransport()
        self._http = httpx.AsyncClient(transport=self.transport)
        self._client = ApiClient(self._http, "http://127.0.0.1:1", "a-token")

    def close(self) -> None:
        self._runner.run(self._http.aclose())
        self._runner.close()

    def get(self, status: int = 200, body: bytes = b'{"enabled":true}', **headers: bytes) -> None:
        own = {"content_type": b"application/json", "etag": b'"1"', **headers}
        self.transport.response = status, {name.replace("_", "-"): each for name, each in own.items()}, body
        self._runner.run(self._client.get())

    def history(self, body: bytes) -> None:
        self.transport.response = 200, {"content-type": b"application/json"}, body
        for change in self._runner.run(self._client.history(limit=1)):
            row(change)

    def watch(self, body: bytes) -> None:
        self.transport.response = 200, {"content-type": b"text/event-stream"}, body

        async def follow() -> None:
            async for _ in self._client.events(None):
                pass

        self._runner.run(follow())


def one_line(data: bytes) -> bytes:
    return data.translate(None, b"\r\n\x00")


COMMAND_PARSERS: Mapping[str, Callable[[Command, bytes], object]] = {
    "answer": lambda command, data: command.get(body=data),
    "message": lambda command, data: command.get(400, json.dumps({"message": text(data)}).encode()),
    "media type": lambda command, data: command.get(content_type=one_line(data)),
    "version": lambda command, data: command.get(etag=one_line(data)),
    "identifier": lambda command, data: command.get(400, x_request_id=one_line(data)),
    "redirect": lambda command, data: command.get(302, location=one_line(data)),
    "redirect to a host": lambda command, data: command.get(302, location=b"https://" + one_line(data)),
    "history": lambda command, data: command.history(
        json.dumps({"changes": [{"version": 1, "enabled": True, "changed_by": text(data)}]}).encode()
    ),
    "stream": lambda command, data: command.watch(data),
    "event": lambda command, data: command.watch(b"event: change\ndata: " + data + b"\n\n"),
    "retry": lambda command, data: command.watch(b"retry: " + one_line(data) + b"\n\n"),
    "printed text": lambda _command, data: printable(text(data)),
    "printed change": lambda _command, data: row(ChangeRecord(1, enabled=True, changed_by=text(data))),
}


# --- The log


def logged(log_format: str) -> Callable[[bytes], object]:
    line_of = formatter(log_format).format

    def log(data: bytes) -> None:
        error = ValueError(text(data))
        extra: dict[str, Any] = {"path": text(data), "exc_info": (ValueError, error, None)}
        line_of(logging.makeLogRecord({"msg": "%s", "args": (text(data),), "levelname": "INFO", **extra}))

    return log


LOG_FORMATTERS: Mapping[str, Callable[[bytes], object]] = {name: logged(name) for name in ("logfmt", "json", "console")}


# --- The tests


@pytest.mark.parametrize("function", REQUEST_PARSERS.values(), ids=REQUEST_PARSERS.keys())
def test_cost_of_a_request_is_linear(function: Callable[[bytes], object]) -> None:
    assert not disproportionate(lambda data: seconds(lambda: function(data)), 4_000, MIN_SECONDS)


@pytest.mark.parametrize("function", STORE_AND_PROVIDER_PARSERS.values(), ids=STORE_AND_PROVIDER_PARSERS.keys())
def test_cost_of_a_store_or_provider_response_is_linear(function: Callable[[bytes], object]) -> None:
    assert not disproportionate(lambda data: seconds(lambda: function(data)), 4_000, MIN_SECONDS)


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    command = Command()
    yield command
    command.close()


@pytest.mark.parametrize("function", COMMAND_PARSERS.values(), ids=COMMAND_PARSERS.keys())
def test_cost_of_a_response_to_the_command_is_linear(
    command: Command, function: Callable[[Command, bytes], object]
) -> None:
    assert not disproportionate(lambda data: seconds(lambda: function(command, data)), 4_000, MIN_SECONDS)


def test_cost_of_a_response_in_small_parts_is_linear(command: Command) -> None:
    def cost(data: bytes) -> float:
        command.transport.part_size = 8
        try:
            return seconds(lambda: command.get(body=data))
        finally:
            command.transport.part_size = FakeTransport.part_size

    assert not disproportionate(cost, 100_000, MIN_SECONDS, {"one letter": SHAPES["one letter"]})


@pytest.mark.parametrize("function", LOG_FORMATTERS.values(), ids=LOG_FORMATTERS.keys())
def test_cost_of_a_log_line_is_linear(function: Callable[[bytes], object]) -> None:
    for size in (4_000, 40_000):  # a field is cut at several lengths
        assert not disproportionate(lambda data: seconds(lambda: function(data)), size, MIN_SECONDS)


@pytest.mark.parametrize(("shape", "pattern"), [("headers of tokens", r"eyJ[\w-]+\.[\w-]+"), ("spaces", r"[ ]*x")])
def test_quadratic_pattern_is_found(shape: str, pattern: str) -> None:
    """A control: the tests above can fail."""
    search = re.compile(pattern).search
    shapes = {name: SHAPES[name] for name in ("one letter", shape)}
    (found,) = disproportionate(lambda data: seconds(lambda: search(text(data))), 1_000, 0.0, shapes)
    assert found.startswith(shape)


# --- Requests to the real server


@pytest.fixture(scope="module")
def busy_service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    own = {"TENANT_HOST": "{tenant}.example", "CORS_ALLOW_ORIGINS": "https://shop.example", "METRICS_TOKEN": "m" * 20}
    with Service(tmp_path_factory.mktemp("busy") / "log", redis_url, **own) as service:
        yield service


def target(path: str) -> Callable[[bytes], bytes]:
    """Return a function that makes a request for a path that ends with the input."""
    return lambda data: b"GET %b%b HTTP/1.1\r\nHost: x\r\n" % (path.encode(), quote(data, '/?%&=;:@[]"\\,!').encode())


def with_header(name: str, path: str = PATH) -> Callable[[bytes], bytes]:
    """Return a function that makes a request with the input in one header."""
    host = b"" if name == "Host" else b"Host: acme.example\r\n"
    token = b"" if name == "Authorization" else f"Authorization: Bearer {make_token('acme')}\r\n".encode()
    head = b"GET %b HTTP/1.1\r\n%b%b%b: " % (path.encode(), host, token, name.encode())
    return lambda data: head + one_line(data) + b"\r\n"


def with_headers(data: bytes) -> bytes:
    """Return a request with the input in many headers of one name."""
    lines = [b"x: %b\r\n" % one_line(data[start : start + 4]) for start in range(0, len(data) // 4, 4)]
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b" % (PATH.encode(), b"".join(lines))


def with_body(path: str, media_type: bytes = b"application/json") -> Callable[[bytes], bytes]:
    token = make_token("acme").encode()
    head = b"POST %b HTTP/1.1\r\nHost: acme.example\r\nAuthorization: Bearer %b\r\nContent-Type: %b\r\n"

    def request(data: bytes) -> bytes:
        body = data[:16_000]
        return head % (path.encode(), token, media_type) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    return request


def with_content_type(data: bytes) -> bytes:
    return with_body(PATH, one_line(data))(b"{}")


FLAGS = "/ofrep/v1/evaluate/flags"
REQUESTS: Mapping[str, Callable[[bytes], bytes]] = {
    "path": target("/"),
    "path below a document's": target("/v0/"),
    "path of the documentation": target("/docs/"),
    "path of a file": target("/v0/ui/"),
    "path of a flag": target(f"{FLAGS}/"),
    "query": target(f"{HISTORY_PATH}?limit="),
    "fields of a query": target(f"{HISTORY_PATH}?"),
    "Host": with_header("Host"),
    "Authorization": with_header("Authorization"),
    "If-None-Match": with_header("If-None-Match"),
    "If-Match": with_header("If-Match"),
    "traceparent": with_header("traceparent"),
    "X-Request-ID": with_header("X-Request-ID"),
    "Last-Event-ID": with_header("Last-Event-ID", f"{PATH}/events"),
    "Origin": with_header("Origin"),
    "Accept": with_header("Accept"),
    "Cookie": with_header("Cookie"),
    "Range of a file": with_header("Range", "/v0/ui/page.js"),
    "If-Modified-Since of a file": with_header("If-Modified-Since", "/v0/ui/page.js"),
    "many headers": with_headers,
    "Content-Type": with_content_type,
    "body": with_body(PATH),
    "body of a flag": with_body(FLAGS),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS.keys())
def test_cost_of_a_request_to_the_service_is_linear(
    busy_service: Service, request_of: Callable[[bytes], bytes]
) -> None:
    def cost(data: bytes) -> float:
        request = request_of(data)
        if b"\r\n\r\n" not in request:
            request += b"\r\n"
        before = cpu_seconds(busy_service.pid)
        send_request(busy_service.port, request)
        # When this request is answered, the first one is logged.
        send_request(busy_service.port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        return cpu_seconds(busy_service.pid) - before

    assert not disproportionate(cost, 3_800, MIN_REQUEST_SECONDS)


def send_request(port: int, request: bytes) -> None:
    with Wire("127.0.0.1", port) as wire:
        wire.send(request)
        assert wire.readline().startswith(b"HTTP/1.1 ")
