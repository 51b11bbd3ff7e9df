"""Swagger UI in a real browser, under a host name that is not localhost."""

import http.client
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import yaml
from playwright.sync_api import expect

from tests.contract import CONTRACT_FILE, PATH, Client
from tests.processes import ROOT, Service, make_token, skip_locally
from tests.waiting import PATIENCE
from tests.web.conftest import HOST
from tests.web.endpoints.conftest import NewUi
from tests.web.endpoints.swagger_ui_page import CLIENT_TITLE, EXTENSIONS_TITLE, OFREP_TITLE, PHONE, TITLE, SwaggerUi

FOREIGN_DOCUMENT = "http://stranger.example/openapi.yaml"


def test_user_authorizes_reads_and_changes_the_setting(ui: SwaggerUi, tenant: str, client: Client) -> None:
    ui.open()
    assert urlsplit(ui.page.url).path == "/v0/ui/"
    ui.authorize(make_token(tenant))
    read = ui.execute("GET")
    assert (read.status, read.body, read.headers["etag"]) == ("200", {"enabled": False}, '"0"')
    written = ui.execute("POST", '{"enabled": true}')
    assert (written.status, written.body, written.headers["etag"]) == ("200", {"enabled": True}, '"1"')
    again = ui.execute("GET")
    assert (again.body, again.headers["etag"]) == ({"enabled": True}, '"1"')
    assert len({each.headers["x-request-id"] for each in (read, written, again)}) == 3
    assert client.history()[0]["request_id"] == written.headers["x-request-id"]


class PrefixProxy(BaseHTTPRequestHandler):
    """A proxy that serves the service on port `target` below `/api/` and removes this prefix."""

    target: int

    def _forward(self) -> None:
        if not self.path.startswith("/api/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=PATIENCE)
        connection.request(self.command, self.path.removeprefix("/api"), body, dict(self.headers))
        response = connection.getresponse()
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.read())
        connection.close()

    do_GET = do_POST = _forward  # noqa: N815 - as http.server requires

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def prefix_port(service: Service) -> Iterator[int]:
    """Return the port of a PrefixProxy."""
    handler = type("Handler", (PrefixProxy,), {"target": service.port})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_page_works_below_a_path_prefix(new_ui: NewUi, prefix_port: int, tenant: str, client: Client) -> None:
    ui = new_ui(prefix_port)
    ui.open("/api/")
    assert urlsplit(ui.page.url).path == "/api/v0/ui/"
    links = {link.get_attribute("href") or "" for link in ui.page.locator(".info .description a").all()}
    assert links
    assert all(link.startswith("/api/docs/") for link in links)
    ui.authorize(make_token(tenant))
    written = ui.execute("POST", '{"enabled": true}')
    assert (written.status, written.body) == ("200", {"enabled": True})
    assert f"http://{HOST}:{prefix_port}/api{PATH}" in written.curl
    assert client.enabled()
    ui.choose_document(EXTENSIONS_TITLE)
    assert ui.execute("GET").body["changes"][0]["version"] == 1


def test_each_error_is_shown_with_its_request_id(ui: SwaggerUi, tenant: str, client: Client) -> None:
    ui.open()
    refused = ui.execute("GET")
    assert (refused.status, refused.body["error_code"]) == ("401", "unauthorized")
    ui.authorize(make_token(tenant))
    bad = ui.execute("POST", '{"enabled": "yes"}')
    assert (bad.status, bad.body["error_code"]) == ("400", "bad_request")
    assert "enabled" in bad.body["message"]
    ui.page.route(f"**{PATH}", lambda route: route.continue_(headers={**route.request.headers, "If-Match": '"7"'}))
    conflict = ui.execute("POST", '{"enabled": true}')
    assert (conflict.status, conflict.headers["etag"]) == ("409", '"0"')
    assert conflict.body["error_code"] == "concurrent_update_on_tenant_setting"
    for shown in (refused, bad, conflict):
        assert shown.body["request_id"] == shown.headers["x-request-id"]
    assert not client.enabled()


def test_selector_lists_the_contract_first_then_every_document(ui: SwaggerUi) -> None:
    own = [file for file in sorted((ROOT / "app").glob("*.yaml")) if file.name != CONTRACT_FILE.name]
    files = [CONTRACT_FILE, *own]
    titles = [yaml.safe_load(file.read_text())["info"]["title"] for file in files]
    ui.open()
    assert ui.titles() == titles
    for title in reversed(titles):
        ui.choose_document(title)


def test_authorization_covers_every_document_and_survives_a_reload(ui: SwaggerUi, tenant: str) -> None:
    """One document has another name for the security scheme."""
    extensions = (ROOT / "app" / "extensions.yaml").read_text().replace("newStoreAccessToken", "another")
    ui.page.route("**/extensions.yaml", lambda route: route.fulfill(body=extensions))
    ui.open()
    assert not ui.is_authorized()
    ui.authorize(make_token(tenant))
    ui.choose_document(EXTENSIONS_TITLE)
    assert ui.is_authorized()
    assert ui.execute("GET").body == {"tenant": tenant, "changes": []}
    ui.page.reload()
    ui.expect_document(EXTENSIONS_TITLE)
    expect(ui.operation("GET")).to_have_class(re.compile("is-open"))  # the address names the operation
    assert ui.is_authorized()
    assert ui.execute("GET").body == {"tenant": tenant, "changes": []}
    ui.choose_document(TITLE)
    assert ui.execute("GET").body == {"enabled": False}


def test_conditional_requests_are_offered_for_the_client_document(ui: SwaggerUi, tenant: str, client: Client) -> None:
    ui.open()
    ui.authorize(make_token(tenant))
    ui.choose_document(CLIENT_TITLE)
    first = ui.execute("POST", '{"enabled": true}')
    assert (first.status, first.headers["etag"]) == ("200", '"1"')  # the page proposes no condition
    ui.operation("POST").get_by_placeholder("If-Match").fill('"1"')
    second = ui.execute("POST", '{"enabled": false}')
    assert (second.status, second.headers["etag"]) == ("200", '"2"')
    conflict = ui.execute("POST", '{"enabled": true}')
    assert (conflict.status, conflict.headers["etag"]) == ("409", '"2"')
    assert not client.enabled()


def test_proposed_flag_requests_succeed(ui: SwaggerUi, tenant: str) -> None:
    """The page proposes a valid key and a valid body."""
    ui.open()
    ui.authorize(make_token(tenant))
    ui.choose_document(OFREP_TITLE)
    assert ui.is_authorized()
    one, every = ui.execute("POST"), ui.execute("POST", operation=1)
    assert (one.status, one.body["key"], one.body["variant"]) == ("200", "external_oms.enabled", "off")
    expected = {"flags": [one.body], "metadata": {"version": 0}}
    assert (every.status, every.headers["etag"], every.body) == ("200", '"0"', expected)


def test_shown_curl_commands_work_in_a_shell(new_ui: NewUi, tenant: str, client: Client) -> None:
    if shutil.which("curl") is None:
        skip_locally("curl is not installed")
    ui = new_ui(host="127.0.0.1")  # the shell can resolve this one
    ui.open()
    ui.authorize(make_token(tenant))
    for method, body in (("POST", '{"enabled": true}'), ("GET", None)):
        shown = ui.execute(method, body)
        pasted = subprocess.run(["/bin/sh", "-c", shown.curl], capture_output=True, text=True, check=True)
        assert json.loads(pasted.stdout) == {"enabled": True}
    assert [each["version"] for each in client.history()] == [1]


def test_query_cannot_make_the_page_load_a_foreign_document(ui: SwaggerUi) -> None:
    urls = quote(json.dumps([{"name": "x", "url": FOREIGN_DOCUMENT}]))
    for query in (
        f"url={FOREIGN_DOCUMENT}",
        f"configUrl={FOREIGN_DOCUMENT}&config={FOREIGN_DOCUMENT}",
        f"queryConfigEnabled=true&urls={urls}&urls.primaryName=x&validatorUrl={FOREIGN_DOCUMENT}&spec={FOREIGN_DOCUMENT}",
        "url=/extensions.yaml",
    ):
        ui.open(f"/v0/ui/?{query}")
        ui.page.wait_for_load_state("networkidle")
        ui.expect_document(TITLE)


def test_links_of_the_contract_lead_to_the_documentation(ui: SwaggerUi, client: Client) -> None:
    ui.open()
    links = {link.get_attribute("href") or "" for link in ui.page.locator(".info .description a").all()}
    assert len(links) > 5
    for link in links:
        assert client.request("GET", link).headers["location"] == f"https://docs.newstore.net{link.split('#')[0]}"


def test_page_fits_a_phone_and_its_controls_fit_a_finger(new_ui: NewUi, tenant: str) -> None:
    ui = new_ui(**PHONE)
    ui.open()
    ui.authorize(make_token(tenant))
    for method in ("GET", "POST"):
        assert ui.execute(method).status == "200"
    controls = ui.page.locator("button:visible, select:visible, input:visible, .download-contents:visible")
    small = [
        control.evaluate("(each) => each.outerHTML.slice(0, 120)")
        for control in controls.all()
        if (box := control.bounding_box()) and min(box["width"], box["height"]) < 44
    ]
    assert small == []
    assert not ui.scrolls_sideways()
    ui.choose_document(EXTENSIONS_TITLE)
    for number in range(2):
        ui.operation("GET", number).locator(".opblock-summary-control").click()
    assert not ui.scrolls_sideways()


def test_note_is_shown_as_plain_text(new_ui: NewUi, tmp_path: Path, redis_url: str) -> None:
    note = "Tokens: <img src=x onerror=alert()> `make token`"
    with Service(tmp_path / "log", redis_url, UI_NOTE=note) as service:
        ui = new_ui(service.port)
        ui.open()
        expect(ui.page.locator(".note")).to_have_text(note)


def test_page_has_no_note_by_default(ui: SwaggerUi) -> None:
    ui.open()
    assert ui.page.locator(".note").count() == 0
    assert "bin/serve" not in ui.page.locator("body").inner_text()
