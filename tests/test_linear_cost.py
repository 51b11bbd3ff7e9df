"""Tests that the cost of every parser of external bytes grows in proportion to the input.

Linear code takes 8 times as long for 8 times the input, and quadratic code takes 64 times as long. The threshold is in
between, with room for a loaded machine. Each case has its own size, because an input above a limit costs little.
"""

import asyncio
import base64
import hashlib
import hmac
import http.client
import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

import httpx
import jwt
import pytest
from redis.exceptions import NoPermissionError

from app.auth.keys import MAX_ADDRESS_CHARACTERS, Key, StaticKeySource, is_trusted_address, keys_from_jwks
from app.auth.tokens import TokenVerifier
from app.cli.output import printable, row
from app.errors import StoreError
from app.logs import formatter
from app.preflight.findings import findings
from app.preflight.inspection import ServerFacts, failure_reason
from app.store.redis_store import RedisStore
from app.store.redis_url import Address
from app.web.bearer_token import bearer_token
from app.web.change_reason import change_reason
from app.web.context import request_context
from app.web.contract.json_body import parse
from app.web.etags import expected_versions, is_not_modified
from app.web.middleware.trace_context import trace_of
from app.web.ofrep import EvaluationCode, error_fields, is_ofrep
from bench.processes import cpu_seconds
from external_oms_config import AsyncClient, ChangeRecord, Disconnected
from tests.contract import HISTORY_PATH, PATH, Wire
from tests.hostile import SHAPES, assert_within_limits, disproportionate, seconds
from tests.processes import SECRET, Service, make_token

# Below these times, a measurement shows the cost of the call and not of the input.
LEAST_SECONDS: Final = 0.00005
LEAST_REQUEST_SECONDS: Final = 0.002

# Sizes of the smaller input. The larger one, 8 times as long, must stay below the limit in the comment.
SIZE: Final = 4_000  # no limit
HEADER_SIZE: Final = 3_800  # 32 KiB for a request's head
QUERY_SIZE: Final = 1_200  # the same limit; percent-encoding triples the input
FILE_PATH_SIZE: Final = 60  # 512 characters
BODY_SIZE: Final = 2_000  # 16,384 bytes, also for a stored value
AUTHOR_SIZE: Final = 120  # 1,024 characters
TOKEN_SIZE: Final = 1_400  # 16,384 characters; base64 adds a third
CLAIM_SIZE: Final = 700  # the same limit; JSON doubles quotes and backslashes
ESCAPED_SIZE: Final = 240  # the same limit; JSON escapes take up to 6 characters
SHORT_TEXT_SIZE: Final = 30  # 255 characters
ADDRESS_SIZE: Final = 250  # 2,048 characters
KEY_BYTES: Final = 8  # of the input, for each key of a key set
KEY_SET_SIZE: Final = 12 * KEY_BYTES  # 100 keys

Case = tuple[int, Callable[[bytes], object]]


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def result_of(coroutine: Any) -> Any:
    """Run a coroutine that never waits, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


# --- Parsers of requests and their tokens


def header(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value)]


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(claims: bytes, protected: bytes = b'{"alg":"HS256"}') -> str:
    signing_input = base64url(protected) + b"." + base64url(claims)
    signature = hmac.digest(SECRET.encode(), signing_input, hashlib.sha256)
    return (signing_input + b"." + base64url(signature)).decode()


VERIFIER = TokenVerifier(StaticKeySource((Key(SECRET, ("HS256",)),)))
REALM_VERIFIER = TokenVerifier(StaticKeySource((Key(SECRET, ("HS256",)),)), issuer="https://id.example/{tenant}/x")


def verify(token: str) -> None:
    result_of(VERIFIER.verify(token))


def verify_with_issuer(data: bytes) -> None:
    result_of(REALM_VERIFIER.verify(token_with(b"https://id.example/" + data, "iss")))


def token_with(data: bytes, name: str) -> str:
    """Return a token with the input in one claim, without bytes that JSON or UTF-8 makes much longer."""
    value = data.translate(None, b"\r\n\x00\x1b").decode("utf-8", "ignore")
    claims = {"exp": 2**40, "tenant": "acme", name: value}
    return signed(json.dumps(claims, ensure_ascii=False).encode())


def claim(name: str) -> Callable[[bytes], object]:
    return lambda data: verify(token_with(data, name))


def ofrep_error(data: bytes) -> None:
    path = f"/ofrep/v1/evaluate/flags/{text(data)}"
    error_fields({"path": path}, 404, EvaluationCode.GENERAL, "")
    is_ofrep({"raw_path": quote(path).encode()})


REQUEST_PARSERS: Mapping[str, Case] = {
    "If-Match": (HEADER_SIZE, lambda data: expected_versions(header(b"if-match", data))),
    "If-Match in several lines": (
        HEADER_SIZE,
        lambda data: expected_versions([(b"if-match", each) for each in data.split(b",")]),
    ),
    "If-Match with one tag": (HEADER_SIZE, lambda data: expected_versions(header(b"if-match", b'"' + data))),
    "If-None-Match": (HEADER_SIZE, lambda data: is_not_modified(header(b"if-none-match", data), 1)),
    "Change-Reason": (HEADER_SIZE, lambda data: change_reason(header(b"change-reason", data))),
    "traceparent": (HEADER_SIZE, lambda data: trace_of({"headers": header(b"traceparent", data)})),
    "X-Request-ID": (HEADER_SIZE, lambda data: request_context({"headers": header(b"x-request-id", data)})),
    "Authorization": (HEADER_SIZE, lambda data: bearer_token(header(b"authorization", b"Bearer " + data))),
    "body": (BODY_SIZE, parse),
    "body's text": (BODY_SIZE, lambda data: parse(json.dumps({"a": text(data)}).encode())),
    "path of a flag": (SIZE, ofrep_error),
    "token": (TOKEN_SIZE, lambda data: verify(data.decode("latin-1"))),
    "token's header": (TOKEN_SIZE, lambda data: verify(signed(b"{}", data))),
    "token's key identifier": (ESCAPED_SIZE, lambda data: verify(jwt.encode({}, SECRET, headers={"kid": text(data)}))),
    "token's claims": (TOKEN_SIZE, lambda data: verify(signed(data))),
    "token's signature": (
        TOKEN_SIZE,
        lambda data: verify(f"{make_token('acme').rpartition('.')[0]}.{data.decode('latin-1')}"),
    ),
    "token's tenant": (CLAIM_SIZE, claim("tenant")),
    "token's sub": (SHORT_TEXT_SIZE, claim("sub")),
    "token's scope": (CLAIM_SIZE, claim("scope")),
    "token's scp": (ESCAPED_SIZE, lambda data: verify(make_token("acme", scp=text(data).split(" ")))),
    "token's issuer": (CLAIM_SIZE, verify_with_issuer),
}


# --- Parsers of replies from Redis and from an identity provider


class OneValue:
    """A `Topology` that returns the same value for every key."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    async def read(self, _key: str, _limit: float) -> bytes:
        return self._value


def read_stored(value: bytes) -> None:
    result_of(RedisStore(OneValue(value), 1.0, 100).current("acme"))  # type: ignore[arg-type]  # only `read` is used


def stored_text(data: bytes) -> bytes:
    return json.dumps({"enabled": True, "version": 1, "at": 0, "by": text(data), "request": "r", "id": "i"}).encode()


def rejected_command(data: bytes) -> None:
    error = StoreError("the change was rejected")
    error.__cause__ = NoPermissionError(f"this user has no permission to run '{text(data)}")
    failure_reason(error)


def reported_policy(data: bytes) -> None:
    facts = ServerFacts(
        server="a:1", role="primary", maxmemory_policy=text(data), appendonly=True, appendfsync="always", replicas=1,
        min_replicas_to_write=True, cluster_require_full_coverage=False, allows_scan=True,
    )  # fmt: skip
    findings([facts], Address(hosts=(("localhost", 1),)), min_replicas=0)


_NUMBERS = itertools.count()  # for new addresses, because `urlsplit` caches its results


RSA_KEY: Final = {"kty": "RSA", "e": "AQAB", "n": "u" * 342}


def key_with(**members: str) -> Callable[[bytes], object]:
    """Return a function that parses a key set of one key with the input in the first of `members`."""
    name = next(iter(members))
    good = {**RSA_KEY, "kid": "1", **members}
    return lambda data: keys_from_jwks({"keys": [good | {name: text(data)}]}, ["RS256", "ES256", "EdDSA"])


def key_set(data: bytes) -> None:
    starts = range(0, len(data), KEY_BYTES)
    keys = [{**RSA_KEY, "kid": f"{start} {text(data[start : start + KEY_BYTES])}"} for start in starts]
    assert len(keys_from_jwks({"keys": keys}, ["RS256"])[0]) == len(keys)


def trusted_address(address: str) -> None:
    assert len(address) <= MAX_ADDRESS_CHARACTERS
    is_trusted_address(address)


REPLY_PARSERS: Mapping[str, Case] = {
    "stored value": (BODY_SIZE, read_stored),
    "stored text": (AUTHOR_SIZE, lambda data: read_stored(stored_text(data))),
    "command that Redis rejects": (SIZE, rejected_command),
    "policy that Redis reports": (SIZE, reported_policy),
    "key set of many keys": (KEY_SET_SIZE, key_set),
    "key's identifier": (SHORT_TEXT_SIZE, key_with(kid="")),
    "key's modulus": (SIZE, key_with(n="")),
    "key's exponent": (SIZE, key_with(e="")),
    "key's curve": (SIZE, key_with(crv="", kty="EC", x="", y="")),
    "key's point": (SIZE, key_with(x="", kty="OKP", crv="Ed25519")),
    "address of a key set": (ADDRESS_SIZE, lambda data: trusted_address(f"https://{next(_NUMBERS)}{text(data)}")),
    "path of a key set": (ADDRESS_SIZE, lambda data: trusted_address(f"https://id.example/{text(data)}")),
}


# --- Responses to the command


class FixedResponse(httpx.AsyncBaseTransport):
    """A transport that returns the same response to every request, with the body in chunks of `chunk_size` bytes."""

    chunk_size = 256

    def __init__(self) -> None:
        self.response: tuple[int, dict[str, bytes], bytes] = (200, {}, b"")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self.response
        return httpx.Response(
            status,
            headers=[(name.encode(), value) for name, value in headers.items()],
            stream=ChunkedBody(body, self.chunk_size),
        )


class ChunkedBody(httpx.AsyncByteStream):
    def __init__(self, body: bytes, size: int) -> None:
        self._body = body
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), self._size):
            yield self._body[start : start + self._size]


class Command:
    """The command's client, which receives the response that the caller passes."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.transport = FixedResponse()
        self._client = AsyncClient("http://127.0.0.1:1", "a-token", transport=self.transport)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def get(self, status: int = 200, body: bytes = b'{"enabled":true}', **headers: bytes) -> None:
        own = {"content_type": b"application/json", "etag": b'"1"', **headers}
        self.transport.response = status, {name.replace("_", "-"): each for name, each in own.items()}, body
        self._runner.run(self._client.get())

    def history(self, body: bytes) -> None:
        self.transport.response = 200, {"content-type": b"application/json"}, body
        for change in self._runner.run(self._client.history(limit=1)).changes:
            row(change)

    def watch(self, body: bytes) -> None:
        self.transport.response = 200, {"content-type": b"text/event-stream"}, body

        async def follow() -> None:
            async with aclosing(self._client.follow()) as messages:
                async for message in messages:
                    if isinstance(message, Disconnected):
                        raise message.error

        self._runner.run(follow())


def one_line(data: bytes) -> bytes:
    return data.translate(None, b"\r\n\x00")


COMMAND_RESPONSES: Mapping[str, Callable[[Command, bytes], object]] = {
    "body": lambda command, data: command.get(body=data),
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


@pytest.mark.parametrize(("size", "function"), REQUEST_PARSERS.values(), ids=REQUEST_PARSERS.keys())
def test_cost_of_a_request_is_linear(size: int, function: Callable[[bytes], object]) -> None:
    assert not disproportionate(lambda data: seconds(lambda: function(data)), size, LEAST_SECONDS)


@pytest.mark.parametrize(("size", "function"), REPLY_PARSERS.values(), ids=REPLY_PARSERS.keys())
def test_cost_of_a_reply_is_linear(size: int, function: Callable[[bytes], object]) -> None:
    assert not disproportionate(lambda data: seconds(lambda: function(data)), size, LEAST_SECONDS)


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    command = Command()
    yield command
    command.close()


@pytest.mark.parametrize("function", COMMAND_RESPONSES.values(), ids=COMMAND_RESPONSES.keys())
def test_cost_of_a_response_to_the_command_is_linear(
    command: Command, function: Callable[[Command, bytes], object]
) -> None:
    assert not disproportionate(lambda data: seconds(lambda: function(command, data)), SIZE, LEAST_SECONDS)


def test_cost_of_a_response_in_small_chunks_is_linear(command: Command) -> None:
    def cost(data: bytes) -> float:
        command.transport.chunk_size = 8
        try:
            return seconds(lambda: command.get(body=data))
        finally:
            command.transport.chunk_size = FixedResponse.chunk_size

    assert not disproportionate(cost, 100_000, LEAST_SECONDS, {"one letter": SHAPES["one letter"]})


@pytest.mark.parametrize("function", LOG_FORMATTERS.values(), ids=LOG_FORMATTERS.keys())
def test_cost_of_a_log_line_is_linear(function: Callable[[bytes], object]) -> None:
    for size in (4_000, 40_000):  # a field is cut at several lengths
        assert not disproportionate(lambda data: seconds(lambda: function(data)), size, LEAST_SECONDS)


@pytest.mark.parametrize("size", [CLAIM_SIZE, TOKEN_SIZE])
@pytest.mark.parametrize(("shape", "pattern"), [("headers of tokens", r"eyJ[\w-]+\.[\w-]+"), ("spaces", r"[ ]*x")])
def test_quadratic_pattern_is_found(shape: str, pattern: str, size: int) -> None:
    search = re.compile(pattern).search
    shapes = {name: SHAPES[name] for name in ("one letter", shape)}
    (found,) = disproportionate(lambda data: seconds(lambda: search(text(data))), size, LEAST_SECONDS, shapes)
    assert found.startswith(shape)


def test_input_above_a_limit_is_not_measured() -> None:
    with pytest.raises(AssertionError, match="too long for this test: The token is longer than"):
        seconds(lambda: verify("a" * 20_000))


# --- Requests to the real server


@pytest.fixture(scope="module")
def busy_service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    own = {"TENANT_HOST": "{tenant}.example", "CORS_ALLOW_ORIGINS": "https://shop.example", "METRICS_TOKEN": "m" * 20}
    with Service(tmp_path_factory.mktemp("busy") / "log", redis_url, **own) as service:
        yield service


def target(path: str) -> Callable[[bytes], bytes]:
    """Return the builder of a request for a path that ends with the input."""
    return lambda data: b"GET %b%b HTTP/1.1\r\nHost: x\r\n" % (path.encode(), quote(data, '/?%&=;:@[]"\\,!').encode())


def query_fields(data: bytes) -> bytes:
    """Return a request with the input in the fields of a query, at most 99 of them."""
    fields = [quote(data[start : start + 100], "=") for start in range(0, len(data), 100)]
    return f"GET {HISTORY_PATH}?{'&'.join(fields)} HTTP/1.1\r\nHost: x\r\n".encode()


def with_header(name: str, path: str = PATH, scheme: str = "") -> Callable[[bytes], bytes]:
    """Return the builder of a request with the input in one header, after `scheme`."""
    host = b"" if name == "Host" else b"Host: acme.example\r\n"
    token = b"" if name == "Authorization" else f"Authorization: Bearer {make_token('acme')}\r\n".encode()
    head = b"GET %b HTTP/1.1\r\n%b%b%b: %b" % (path.encode(), host, token, name.encode(), scheme.encode())
    return lambda data: head + one_line(data) + b"\r\n"


def with_headers(data: bytes) -> bytes:
    """Return a request with the input in headers of one name, fewer than the limit of 128."""
    lines = [b"x: %b\r\n" % one_line(data[start : start + 250]) for start in range(0, len(data), 250)]
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b" % (PATH.encode(), b"".join(lines))


def with_body(path: str, media_type: bytes = b"application/json") -> Callable[[bytes], bytes]:
    token = make_token("acme").encode()
    head = b"POST %b HTTP/1.1\r\nHost: acme.example\r\nAuthorization: Bearer %b\r\nContent-Type: %b\r\n"

    def request(data: bytes) -> bytes:
        return head % (path.encode(), token, media_type) + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)

    return request


def posted(data: bytes) -> bytes:
    return with_body(PATH, one_line(data))(b"{}")


FLAGS = "/ofrep/v1/evaluate/flags"
REQUESTS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "path": (QUERY_SIZE, target("/")),
    "path below a document's": (QUERY_SIZE, target("/v0/")),
    "path of the documentation": (FILE_PATH_SIZE, target("/docs/")),
    "path of a file": (FILE_PATH_SIZE, target("/v0/ui/")),
    "path of a flag": (QUERY_SIZE, target(f"{FLAGS}/")),
    "query": (QUERY_SIZE, target(f"{HISTORY_PATH}?limit=")),
    "fields of a query": (QUERY_SIZE, query_fields),
    "Host": (HEADER_SIZE, with_header("Host")),
    "Authorization": (TOKEN_SIZE, with_header("Authorization", scheme="Bearer ")),
    "If-None-Match": (HEADER_SIZE, with_header("If-None-Match")),
    "If-Match": (HEADER_SIZE, with_header("If-Match")),
    "traceparent": (HEADER_SIZE, with_header("traceparent")),
    "X-Request-ID": (HEADER_SIZE, with_header("X-Request-ID")),
    "Last-Event-ID": (HEADER_SIZE, with_header("Last-Event-ID", f"{PATH}/events")),
    "Origin": (HEADER_SIZE, with_header("Origin")),
    "Accept": (HEADER_SIZE, with_header("Accept")),
    "Cookie": (HEADER_SIZE, with_header("Cookie")),
    "Range of a file": (HEADER_SIZE, with_header("Range", "/v0/ui/page.js")),
    "If-Modified-Since of a file": (HEADER_SIZE, with_header("If-Modified-Since", "/v0/ui/page.js")),
    "many headers": (HEADER_SIZE, with_headers),
    "Content-Type": (HEADER_SIZE, posted),
    "body": (BODY_SIZE, with_body(PATH)),
    "body of a flag": (BODY_SIZE, with_body(FLAGS)),
}


@pytest.mark.parametrize(("size", "request_of"), REQUESTS.values(), ids=REQUESTS.keys())
def test_cost_of_a_request_to_the_service_is_linear(
    busy_service: Service, size: int, request_of: Callable[[bytes], bytes]
) -> None:
    def cost(data: bytes) -> float:
        request = request_of(data)
        if b"\r\n\r\n" not in request:
            request += b"\r\n"
        before = cpu_seconds(busy_service.pid)
        send(busy_service.port, request)
        send(busy_service.port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")  # until the first request is in the log
        return cpu_seconds(busy_service.pid) - before

    assert not disproportionate(cost, size, LEAST_REQUEST_SECONDS)


def send(port: int, request: bytes) -> None:
    with Wire("127.0.0.1", port) as wire:
        wire.send(request)
        assert wire.readline().startswith(b"HTTP/1.1 ")
        length = int(http.client.parse_headers(wire).get("Content-Length", 0))
        assert_within_limits(text(wire.read(length)))
