"""Swagger UI in a real browser, under a host name that is not localhost."""

import http.client
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.contract import CONTRACT, CONTRACT_FILE, EXTENSIONS, OFREP, PATH, Client
from tests.processes import ROOT, Service, make_token, skip_locally
from tests.waiting import PATIENCE

HOST = "oms.example"
TITLE = CONTRACT["info"]["title"]
EXTENSIONS_TITLE = EXTENSIONS["info"]["title"]
CLIENT_TITLE = "External OMS Config API, for clients"
FOREIGN_DOCUMENT = "http://stranger.example/openapi.yaml"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as the page shows it, with the curl command for the same request."""

    status: str
    body: Any
    headers: dict[str, str]
    curl: str


class SwaggerUi:
    """The actions that Swagger UI offers to a user."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, path: str = "/", title: str = TITLE) -> None:
        self.page.goto(path)
        self.expect_document(title)

    def expect_document(self, title: str) -> None:
        """Wait until the page shows a document with its operations."""
        expect(self.page.locator(".info .title")).to_contain_text(re.compile(rf"^{re.escape(title)}\s*v\d"))
        expect(self.page.locator(".opblock").first).to_be_visible()

    def choose_document(self, title: str) -> None:
        self.page.get_by_label("Select a definition").select_option(label=title)
        self.expect_document(TITLE if title == CLIENT_TITLE else title)

    def authorize(self, token: str) -> None:
        self.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".modal-ux")
        dialog.get_by_role("textbox").fill(token)
        dialog.get_by_role("button", name="Authorize").click()
        dialog.get_by_role("button", name="Close").click()

    def is_authorized(self) -> bool:
        return "unlocked" not in (self.page.locator(".auth-wrapper .authorize").get_attribute("class") or "")

    def execute(self, method: str, body: str | None = None, operation: int = 0) -> ShownAnswer:
        """Execute an operation and return the answer that the page shows for it.

        Clears an earlier answer first, so that it is not mistaken for the new one.
        """
        block = self.operation(method, operation)
        if "is-open" not in (block.get_attribute("class") or ""):
            block.locator(".opblock-summary-control").click()
        if not block.get_by_role("button", name="Execute").is_visible():
            block.get_by_role("button", name="Try it out").click()
        if block.get_by_role("button", name="Clear").is_visible():
            block.get_by_role("button", name="Clear").click()
            expect(block.locator(".live-responses-table")).to_have_count(0)
        if body is not None:
            block.locator("textarea").fill(body)
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table .response")
        headers = answer.locator("h5:text('Response headers') + pre").inner_text()
        return ShownAnswer(
            status=answer.locator(".response-col_status").inner_text().split()[0],
            body=json.loads(answer.locator(".highlight-code pre").first.inner_text()),
            headers=dict(re.findall(r"^ *([a-z-]+): (.*?) *$", headers, re.MULTILINE)),
            curl=block.locator(".curl").inner_text(),
        )

    def operation(self, method: str, number: int = 0) -> Locator:
        return self.page.locator(f".opblock-{method.lower()}").nth(number)

    def scrolls_sideways(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        skip_locally("chromium is not installed")
    # Only the service is reachable, and requests to other hosts are recorded.
    rules = f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[rules])
        yield browser
        browser.close()


NewUi = Callable[..., SwaggerUi]


@pytest.fixture
def new_ui(browser: Browser, service: Service) -> Iterator[NewUi]:
    """Return a factory of pages, each in a new browser context. At the end, check that none had a hidden error."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def ui(port: int = service.port, host: str = HOST, **options: Any) -> SwaggerUi:
        origin = f"http://{host}:{port}"

        def note_message(message: ConsoleMessage) -> None:
            # Chromium logs each error answer, even if the page shows it.
            if PATH not in message.location["url"]:
                problems.append(f"{message.type}: {message.text}")

        def note_request(url: str) -> None:
            if not url.startswith((f"{origin}/", "data:", f"blob:{origin}/")):
                problems.append(f"requested {url}")

        contexts.append(browser.new_context(base_url=origin, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", note_message)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: note_request(request.url))
        return SwaggerUi(page)

    yield ui
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def ui(new_ui: NewUi) -> SwaggerUi:
    return new_ui()


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
    assert ui.page.get_by_label("Select a definition").locator("option").all_inner_texts() == titles
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
    ui.choose_document(OFREP["info"]["title"])
    assert ui.is_authorized()
    one, every = ui.execute("POST"), ui.execute("POST", operation=1)
    assert (one.status, one.body["key"], one.body["variant"]) == ("200", "external_oms.enabled", "off")
    assert (every.status, every.headers["etag"], every.body) == ("200", '"0"', {"flags": [one.body]})


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
