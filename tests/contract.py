"""A client that checks every answer of the service against the contract."""

import http.client
import io
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import httpx
import jsonschema
import yaml
from connexion.json_schema import Draft4ResponseValidator, resolve_refs

from app.factory import CLIENT_OVERLAY, DOCUMENTS
from app.web.endpoints.documents import published_documents
from tests.waiting import PATIENCE

PATH = "/v0/config/sales_order/external_oms"
ROOT = Path(__file__).parent.parent
CONTRACT_FILE = ROOT / "openapi.yaml"
CONTRACT: dict[str, Any] = yaml.safe_load(CONTRACT_FILE.read_text())

# The error code of each status.
ERROR_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "concurrent_update_on_tenant_setting",
    413: "payload_too_large",
    415: "unsupported_media_type",
    431: "request_header_fields_too_large",
    500: "internal_server_error",
}
MESSAGES = {
    409: "Concurrent update detected on external_oms configuration setting.",
    500: "Couldn't process request due to an internal error.",
}
HISTORY_PATH = f"{PATH}/history"
EXTENSIONS: dict[str, Any] = resolve_refs(yaml.safe_load((ROOT / "app" / "extensions.yaml").read_text()))

# The contract plus what the service adds to it.
CLIENT_DOCUMENT: dict[str, Any] = resolve_refs(
    yaml.safe_load(published_documents(DOCUMENTS, CLIENT_OVERLAY)[1].content)
)

OFREP_BASE = "/ofrep/v1"
FLAGS_PATH = f"{OFREP_BASE}/evaluate/flags"
OFREP: dict[str, Any] = resolve_refs(yaml.safe_load((ROOT / "app" / "ofrep.yaml").read_text()))
OFREP_CODES = {400: {"PARSE_ERROR", "INVALID_CONTEXT", "GENERAL"}, 404: {"FLAG_NOT_FOUND", "GENERAL"}}

_OPERATIONS = {
    f"/v0{path}": each for document in (CLIENT_DOCUMENT, EXTENSIONS) for path, each in document["paths"].items()
}
_OPERATIONS |= {f"{OFREP_BASE}{path}": each for path, each in OFREP["paths"].items()}
_ERROR_SCHEMA = _OPERATIONS[PATH]["get"]["responses"]["500"]["content"]["application/json"]["schema"]


@dataclass(frozen=True)
class Answer:
    """An answer of the service."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def check(method: str, path: str, answer: Answer, *, malformed: bool = False) -> Answer:
    """Check the answer against the contract and the common rules for headers, and return it."""
    request_id = answer.headers["x-request-id"]
    path = re.sub(rf"(?<=^{FLAGS_PATH}/)[^/]+$", "{key}", requested := path)
    if path == PATH and answer.status in {200, 304, 409} and method != "OPTIONS":
        assert re.fullmatch(r'"(0|[1-9][0-9]*)"', answer.headers["etag"])
    if answer.status == 304:
        assert answer.content == b""
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", request_id)
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    if (path in _OPERATIONS and method != "OPTIONS") or answer.status >= 400:
        assert answer.headers["cache-control"].startswith("no-store")
    if method.lower() in _OPERATIONS.get(path, {}):
        _check_documented(_OPERATIONS[path][method.lower()]["responses"], answer, malformed=malformed)
    if answer.status >= 400:
        _check_error(answer, head=method == "HEAD")
        if method != "HEAD" and requested.startswith(f"{OFREP_BASE}/"):
            key = unquote(requested).removeprefix(f"{FLAGS_PATH}/")
            _check_ofrep_error(answer, "" if key == unquote(requested) else key)
        elif method != "HEAD":
            _check_contract_error(answer, request_id)
    return answer


def _check_documented(documented: dict[str, Any], answer: Answer, *, malformed: bool) -> None:
    if malformed and answer.status == 400 and "400" not in documented:
        return
    response = documented[str(answer.status)]
    assert {name.lower() for name in response.get("headers", {})} <= answer.headers.keys()
    content = response.get("content", {})
    assert answer.headers.get("content-type") in (content or {None})
    if content:
        Draft4ResponseValidator(content["application/json"]["schema"]).validate(answer.json)


def _check_error(answer: Answer, *, head: bool) -> None:
    assert answer.headers["content-type"] == "application/json"
    if answer.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer realm=")
    if answer.status == 405:
        assert answer.headers["allow"]
    assert answer.content if not head else not answer.content


def _check_contract_error(answer: Answer, request_id: str) -> None:
    jsonschema.Draft4Validator(_ERROR_SCHEMA).validate(answer.json)
    assert answer.json.keys() == {"error_code", "message", "request_id"}
    assert answer.json["error_code"] == ERROR_CODES[answer.status]
    assert answer.json["request_id"] == request_id
    assert answer.json["message"] == MESSAGES.get(answer.status, answer.json["message"])


def _check_ofrep_error(answer: Answer, key: str) -> None:
    """Check for the body of the protocol, with the key of the flag if the path has one."""
    assert answer.json.keys() == {"errorCode", "errorDetails", *(["key"] if key else [])}
    assert answer.json["errorCode"] in OFREP_CODES.get(answer.status, {"GENERAL"})
    assert answer.json["errorDetails"] == MESSAGES.get(answer.status) or answer.status != 500
    assert answer.json.get("key", "") == key


class Client:
    """A client that checks every answer. It sends `token` unless a request has its own `Authorization`."""

    def __init__(self, http: httpx.Client, token: str | None) -> None:
        self._http = http
        self._token = token

    def request(self, method: str, path: str = PATH, *, headers: Any = None, **more: Any) -> Answer:
        """Send a request. The values of `headers` are text or bytes."""
        own = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        response = self._http.request(method, path, headers={**own, **(headers or {})}, **more)
        return check(method, path, Answer(response.status_code, response.headers, response.content))

    def history(self, **parameters: Any) -> list[dict[str, Any]]:
        """Return a page of the history."""
        answer = self.request("GET", HISTORY_PATH, params=parameters)
        assert answer.status == 200
        changes: list[dict[str, Any]] = answer.json["changes"]
        return changes

    def get(self, **more: Any) -> Answer:
        return self.request("GET", **more)

    def post(self, content: Any, **more: Any) -> Answer:
        """POST bytes unchanged and any other value as JSON."""
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", **more.pop("headers", {})}
        return self.request("POST", content=content, headers=headers, **more)

    def change(self, *values: bool) -> None:
        """Set the values one after the other."""
        for value in values:
            assert self.post({"enabled": value}).status == 200

    def enabled(self) -> bool:
        """Return the current setting."""
        answer = self.get()
        assert answer.status == 200
        enabled: bool = answer.json["enabled"]
        return enabled

    def raw(self, request: bytes, *, answers: int = 1, path: str = PATH, malformed: bool = False) -> list[Answer]:
        """Send bytes and return the given number of answers. `%AUTH%` is replaced by the header with the token.

        The answer to a `malformed` head may be a 400 even if the contract does not list it.
        """
        host, port = self._http.base_url.host, self._http.base_url.port
        assert port is not None
        with Wire(host, port) as wire:
            wire.send(request.replace(b"%AUTH%", f"Authorization: Bearer {self._token}".encode()))
            method = request.split(b" ", 1)[0].decode("latin-1")
            return [check(method, path, wire.answer(method), malformed=malformed) for _ in range(answers)]


class Wire(io.BufferedReader):
    """One connection that sends bytes and reads any number of answers."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=PATIENCE)
        super().__init__(socket.SocketIO(self._socket, "rb"))

    def __exit__(self, *_error: object) -> None:
        super().close()
        self._socket.close()

    def close(self) -> None:
        """Do nothing, because each HTTPResponse closes its file after one answer."""

    def makefile(self, _mode: str) -> Self:
        """Return this reader to each HTTPResponse, so that they share the bytes that were read ahead."""
        return self

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, method: str) -> Answer:
        """Read the next answer without checking it."""
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]  # has all methods that are used
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())


def probe(port: int, path: str, method: str = "GET") -> Answer:
    """Return the answer of a local service to a request without a token, on a new connection."""
    with Wire("127.0.0.1", port) as wire:
        wire.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return wire.answer(method)
