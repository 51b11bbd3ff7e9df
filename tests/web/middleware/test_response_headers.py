"""The tenant in responses: the header `Oms-Tenant`, and the history."""

import pytest

from tests.contract import FLAGS_PATH, HISTORY_PATH, PATH, Client
from tests.processes import Service, make_token
from tests.streams import EventStream


def test_each_response_to_a_valid_token_names_its_tenant(service: Service, client: Client, tenant: str) -> None:
    answers = [
        client.post({"enabled": True}),
        client.get(),
        client.get(headers={"If-None-Match": '"1"'}),
        client.post({"enabled": False}, headers={"If-Match": '"7"'}),
        client.post({"enabled": 1}),
        client.request("GET", HISTORY_PATH),
        client.request("POST", FLAGS_PATH, json={"context": {}}),
    ]
    assert [answer.status for answer in answers] == [200, 200, 304, 409, 400, 200, 200]
    assert [answer.headers["oms-tenant"] for answer in answers] == [tenant] * len(answers)
    assert answers[5].json["tenant"] == tenant
    with EventStream(service.port, make_token(tenant)) as stream:
        assert stream.headers["oms-tenant"] == tenant


@pytest.mark.parametrize("token", [None, "x", make_token("acme", exp=1), make_token("Not One")])
def test_response_without_a_valid_token_names_no_tenant(service: Service, token: str | None) -> None:
    for path, status in ((PATH, 401), ("/nothing", 404), ("/openapi.yaml", 200)):
        answer = service.client(token).request("GET", path)
        assert (answer.status, "oms-tenant" in answer.headers) == (status, False)
