import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from connexion.json_schema import Draft4ResponseValidator

from app.feed.feed import Feed
from app.operations import operations
from app.web.change_json import change_fields
from tests.contract import CONTRACT, CONTRACT_FILE, EXTENSIONS, OFREP, ROOT, Client
from tests.fake_store import FakeStore

SHA256 = "3b7cd917ae7b65b44abbb04bbd1597c196060df5e47b001b2d1674c75f11bc8a"


def test_the_contract_is_the_customers_file_byte_for_byte() -> None:
    assert hashlib.sha256(CONTRACT_FILE.read_bytes()).hexdigest() == SHA256


def test_the_contract_is_served_byte_for_byte(client: Client) -> None:
    answer = client.request("GET", "/openapi.yaml")
    assert hashlib.sha256(answer.content).hexdigest() == SHA256
    assert answer.headers["content-type"] == "application/yaml"


@pytest.mark.parametrize("name", ["extensions.yaml", "ofrep.yaml"])
def test_our_own_documents_are_served_byte_for_byte(client: Client, name: str) -> None:
    answer = client.request("GET", f"/{name}")
    assert answer.content == (ROOT / "app" / name).read_bytes()


def test_operations_are_exactly_the_operation_ids_of_the_documents() -> None:
    paths = [*CONTRACT["paths"].values(), *EXTENSIONS["paths"].values(), *OFREP["paths"].values()]
    declared = {operation["operationId"] for path in paths for operation in path.values()}
    store = FakeStore(history_length=10)
    assert declared == operations(store, Feed(store)).keys()


OWN = pytest.mark.parametrize("document", [EXTENSIONS, OFREP], ids=["extensions", "ofrep"])


def with_examples(part: Any) -> Iterator[dict[str, Any]]:
    """Yield the media types, headers and parameters that have a schema and an example."""
    if isinstance(part, dict):
        if {"schema", "example"} <= part.keys():
            yield part
        for each in part.values():
            yield from with_examples(each)
    elif isinstance(part, list):
        for each in part:
            yield from with_examples(each)


@pytest.mark.parametrize("document", [CONTRACT, EXTENSIONS, OFREP], ids=["contract", "extensions", "ofrep"])
def test_each_example_of_a_document_fits_its_schema(document: dict[str, Any]) -> None:
    examples = list(with_examples(document["paths"]))
    assert len(examples) > 1
    for each in examples:
        Draft4ResponseValidator(each["schema"]).validate(each["example"])


def test_the_example_of_an_event_has_the_members_of_a_change() -> None:
    answers = EXTENSIONS["paths"]["/config/sales_order/external_oms/events"]["get"]["responses"]
    example = answers["200"]["content"]["text/event-stream"]["example"]
    data = json.loads(example["data"])
    assert re.fullmatch(f"{data['version']}-[0-9a-f]{{8}}", example["id"])
    assert data.keys() == {"tenant", *change_fields(None)}


@OWN
def test_our_own_documents_have_an_owner_and_describe_operations(document: dict[str, Any]) -> None:
    assert document["info"]["contact"].keys() >= {"name", "url"}
    assert document["info"]["license"].keys() >= {"name", "url"}
    tags = {tag["name"] for tag in document["tags"]}
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["tags"]
            assert set(operation["tags"]) <= tags


@OWN
def test_our_own_documents_have_the_errors_of_their_operations(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for method, operation in path.items():
            errors = {"400", "401", "403", "431", "500"} | ({"413", "415"} if method == "post" else set())
            assert errors <= operation["responses"].keys()
