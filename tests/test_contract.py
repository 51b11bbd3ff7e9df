import hashlib

import pytest

from app.feed import Feed
from app.operations import operations
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


def test_each_operation_id_of_the_documents_has_an_operation_and_no_other() -> None:
    paths = [*CONTRACT["paths"].values(), *EXTENSIONS["paths"].values(), *OFREP["paths"].values()]
    declared = {operation["operationId"] for path in paths for operation in path.values()}
    store = FakeStore(history_length=10)
    assert declared == operations(store, Feed(store)).keys()
