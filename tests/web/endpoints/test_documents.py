"""`/client.yaml`: the contract plus what the service adds to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from connexion.spec import Specification

from app.factory import CLIENT_OVERLAY, DOCUMENTS
from app.web.endpoints.documents import published_documents
from tests.contract import CLIENT_DOCUMENT, CONTRACT, PATH, Client
from tests.processes import Service, make_token

ADDITIONS = yaml.safe_load(CLIENT_OVERLAY.read_text())["actions"][0]["update"]
SETTING = PATH.removeprefix("/v0")

RESPONSES = {method: operation["responses"] for method, operation in CLIENT_DOCUMENT["paths"][SETTING].items()}
DOCUMENTED = [(method, status) for method, responses in RESPONSES.items() for status in responses]

# What makes the service send each status, if the current version is 1: headers of the request, or claims of its token.
HEADERS = {
    ("get", "200"): {"If-None-Match": '"0"'},
    ("get", "304"): {"If-None-Match": '"1"'},
    ("get", "431"): {"X-Long": "x" * 33_000},
    ("post", "200"): {"If-Match": '"1"', "Change-Reason": "caf%C3%A9"},
    ("post", "400"): {"Change-Reason": "100%"},
    ("post", "409"): {"If-Match": '"0"'},
    ("post", "415"): {"Content-Type": "text/plain"},
    ("post", "431"): {"X-Long": "x" * 33_000},
}
CLAIMS: dict[str, dict[str, object]] = {"401": {"exp": 1}, "403": {"scope": None}}


def leaves(part: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each value that is not an object, with its place in the document."""
    if not isinstance(part, dict):
        yield place, repr(part)
        return
    for name, each in part.items():
        yield from leaves(each, (*place, name))


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """Run a service that requires a scope."""
    log = tmp_path_factory.mktemp("scoped") / "log"
    with Service(log, redis_url, JWT_READ_SCOPE="oms.write", JWT_WRITE_SCOPE="oms.write") as service:
        yield service


def test_client_document_without_the_additions_is_the_contract(client: Client) -> None:
    served = dict(leaves(yaml.safe_load(client.request("GET", "/client.yaml").content)))
    added = dict(leaves(ADDITIONS))
    assert added.items() <= served.items()
    assert {place: value for place, value in served.items() if place not in added} == dict(leaves(CONTRACT))


def test_client_document_is_valid_openapi() -> None:
    Specification.from_dict(CLIENT_DOCUMENT)


@pytest.mark.parametrize(
    "update",
    [
        {"info": {"title": "Another"}},
        {"security": []},
        {"paths": {SETTING: {"get": {"responses": {"200": {"description": "The same."}}}}}},
        {"paths": {SETTING: {"get": {"responses": {"500": {"$ref": "#/components/responses/Unauthorized"}}}}}},
        {"components": None},
    ],
)
def test_overlay_that_would_replace_a_part_of_the_contract_is_rejected(tmp_path: Path, update: dict[str, Any]) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"info": {"title": "x"}, "actions": [{"target": "$", "update": update}]}))
    with pytest.raises(TypeError, match=r"would replace \$\.\w+"):
        published_documents(DOCUMENTS, overlay)


@pytest.mark.parametrize(("method", "status"), DOCUMENTED)
def test_service_sends_each_status_of_the_client_document(
    scoped: Service, tenant: str, raw: Any, method: str, status: str
) -> None:
    """The client checks the body and the headers of each answer against the document."""
    permitted = {"scope": "oms.write"}
    scoped.client(make_token(tenant, **permitted)).change(True)
    if status == "500":
        raw.set(f"external_oms:{{{tenant}}}", "damaged")
    client = scoped.client(make_token(tenant, **permitted | CLAIMS.get(status, {})))
    headers = HEADERS.get((method, status), {})
    if method == "get":
        answer = client.get(headers=headers)
    else:
        answer = client.post(b" " * 20_000 if status == "413" else {"enabled": False}, headers=headers)
    assert answer.status == int(status)
    if status >= "400":
        example = RESPONSES[method][status]["content"]["application/json"]["example"]
        assert answer.json["error_code"] == example["error_code"]
        assert answer.json["message"] == example["message"] or status == "400"


def test_client_document_has_the_optional_headers_of_each_operation() -> None:
    """None has an example, which Swagger UI would send without being asked. The statuses above show their effect."""
    operations = CLIENT_DOCUMENT["paths"][SETTING].items()
    names = {method: [parameter["name"] for parameter in operation["parameters"]] for method, operation in operations}
    assert names == {"get": ["If-None-Match"], "post": ["If-Match", "Change-Reason"]}
    for _, operation in operations:
        for parameter in operation["parameters"]:
            assert parameter.keys() == {"name", "in", "description", "schema"}
