"""Swagger UI as a person uses it, in a real browser, under a name that is not localhost."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.contract import CONTRACT, CONTRACT_FILE, EXTENSIONS, OFREP, PATH, Client
from tests.processes import ROOT, Service, make_token, skip_locally

HOST = "oms.example"
TITLE = CONTRACT["info"]["title"]
EXTENSIONS_TITLE = EXTENSIONS["info"]["title"]
STRANGER = "http://stranger.example/openapi.yaml"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@dataclass(frozen=True)
class Shown:
    """What the page shows of an answer, and how it says to ask for it at a shell."""

    status: str
    body: Any
    headers: dict[str, str]
    curl: str


class Person:
    """Somebody at the browser, who does what the page offers."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, path: str = "/", title: str = TITLE) -> None:
        self.page.goto(path)
        self.sees(title)

    def sees(self, title: str) -> None:
        """A document, with its operations."""
        expect(self.page.locator(".info .title")).to_contain_text(re.compile(rf"^{re.escape(title)}\s*v\d"))
        expect(self.page.locator(".opblock").first).to_be_visible()

    def chooses(self, title: str) -> None:
        self.page.get_by_label("Select a definition").select_option(label=title)
        self.sees(title)

    def authorizes(self, token: str) -> None:
        self.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".modal-ux")
        dialog.get_by_role("textbox").fill(token)
        dialog.get_by_role("button", name="Authorize").click()
        dialog.get_by_role("button", name="Close").click()

    def is_authorized(self) -> bool:
        return "unlocked" not in (self.page.locator(".auth-wrapper .authorize").get_attribute("class") or "")

    def tries(self, method: str, body: str | None = None, operation: int = 0) -> Shown:
        """Executes an operation; what is shown afterwards is the answer to this and not to an earlier one."""
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
        return Shown(
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
    # Nothing but the service can be reached: a page that asks another host is seen doing so.
    rules = f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[rules])
        yield browser
        browser.close()


Enter = Callable[..., Person]


@pytest.fixture
def enter(browser: Browser, service: Service) -> Iterator[Enter]:
    """Opens a browser for somebody who was never here. At the end, nothing went wrong that a page tells nobody."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def person(port: int = service.port, host: str = HOST, **options: Any) -> Person:
        origin = f"http://{host}:{port}"

        def note_message(message: ConsoleMessage) -> None:
            # Chromium tells of each answer that is an error, also where the page shows it.
            if PATH not in message.location["url"]:
                faults.append(f"{message.type}: {message.text}")

        def note_request(url: str) -> None:
            if not url.startswith((f"{origin}/", "data:", f"blob:{origin}/")):
                faults.append(f"asked {url}")

        contexts.append(browser.new_context(base_url=origin, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", note_message)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: note_request(request.url))
        return Person(page)

    yield person
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def person(enter: Enter) -> Person:
    return enter()


def test_a_person_authorizes_reads_and_flips_the_switch(person: Person, tenant: str, client: Client) -> None:
    person.open()
    assert urlsplit(person.page.url).path == "/v0/ui/"
    person.authorizes(make_token(tenant))
    read = person.tries("GET")
    assert (read.status, read.body, read.headers["etag"]) == ("200", {"enabled": False}, '"0"')
    written = person.tries("POST", '{"enabled": true}')
    assert (written.status, written.body, written.headers["etag"]) == ("200", {"enabled": True}, '"1"')
    again = person.tries("GET")
    assert (again.body, again.headers["etag"]) == ({"enabled": True}, '"1"')
    assert len({each.headers["x-request-id"] for each in (read, written, again)}) == 3
    assert client.history()[0]["request_id"] == written.headers["x-request-id"]


def test_each_error_is_shown_with_its_request_id(person: Person, tenant: str, client: Client) -> None:
    person.open()
    refused = person.tries("GET")
    assert (refused.status, refused.body["error_code"]) == ("401", "unauthorized")
    person.authorizes(make_token(tenant))
    bad = person.tries("POST", '{"enabled": "yes"}')
    assert (bad.status, bad.body["error_code"]) == ("400", "bad_request")
    assert "enabled" in bad.body["message"]
    person.page.route(f"**{PATH}", lambda route: route.continue_(headers={**route.request.headers, "If-Match": '"7"'}))
    conflict = person.tries("POST", '{"enabled": true}')
    assert (conflict.status, conflict.headers["etag"]) == ("409", '"0"')
    assert conflict.body["error_code"] == "concurrent_update_on_tenant_setting"
    for shown in (refused, bad, conflict):
        assert shown.body["request_id"] == shown.headers["x-request-id"]
    assert not client.enabled()


def test_every_document_is_in_the_selector_and_the_contract_comes_first(person: Person) -> None:
    files = [CONTRACT_FILE, *sorted((ROOT / "app").glob("*.yaml"))]
    titles = [yaml.safe_load(file.read_text())["info"]["title"] for file in files]
    person.open()
    assert person.page.get_by_label("Select a definition").locator("option").all_inner_texts() == titles
    for title in reversed(titles):
        person.chooses(title)


def test_who_authorized_once_has_done_so_for_every_document_and_after_a_reload(person: Person, tenant: str) -> None:
    """Also where a document calls the scheme of its tokens otherwise."""
    extensions = (ROOT / "app" / "extensions.yaml").read_text().replace("newStoreAccessToken", "another")
    person.page.route("**/extensions.yaml", lambda route: route.fulfill(body=extensions))
    person.open()
    assert not person.is_authorized()
    person.authorizes(make_token(tenant))
    person.chooses(EXTENSIONS_TITLE)
    assert person.is_authorized()
    assert person.tries("GET").body == {"changes": []}
    person.page.reload()
    person.sees(EXTENSIONS_TITLE)
    expect(person.operation("GET")).to_have_class(re.compile("is-open"))  # the address names it
    assert person.is_authorized()
    assert person.tries("GET").body == {"changes": []}
    person.chooses(TITLE)
    assert person.tries("GET").body == {"enabled": False}


def test_the_flags_are_tried_out_as_they_stand(person: Person, tenant: str) -> None:
    """What the page proposes for the key and the body is good."""
    person.open()
    person.authorizes(make_token(tenant))
    person.chooses(OFREP["info"]["title"])
    assert person.is_authorized()
    one, every = person.tries("POST"), person.tries("POST", operation=1)
    assert (one.status, one.body["key"], one.body["variant"]) == ("200", "external_oms.enabled", "off")
    assert (every.status, every.headers["etag"], every.body) == ("200", '"0"', {"flags": [one.body]})


def test_the_curl_lines_work_when_pasted(enter: Enter, tenant: str, client: Client) -> None:
    if shutil.which("curl") is None:
        skip_locally("curl is not installed")
    person = enter(host="127.0.0.1")  # whose name the shell knows as well
    person.open()
    person.authorizes(make_token(tenant))
    for method, body in (("POST", '{"enabled": true}'), ("GET", None)):
        shown = person.tries(method, body)
        pasted = subprocess.run(["/bin/sh", "-c", shown.curl], capture_output=True, text=True, check=True)
        assert json.loads(pasted.stdout) == {"enabled": True}
    assert [each["version"] for each in client.history()] == [1]


def test_no_address_makes_the_page_load_a_strangers_document(person: Person) -> None:
    urls = quote(json.dumps([{"name": "x", "url": STRANGER}]))
    for query in (
        f"url={STRANGER}",
        f"configUrl={STRANGER}&config={STRANGER}",
        f"queryConfigEnabled=true&urls={urls}&urls.primaryName=x&validatorUrl={STRANGER}&spec={STRANGER}",
        "url=/extensions.yaml",
    ):
        person.open(f"/v0/ui/?{query}")
        person.page.wait_for_load_state("networkidle")
        person.sees(TITLE)


def test_the_contracts_links_lead_to_the_documentation(person: Person, client: Client) -> None:
    person.open()
    links = {link.get_attribute("href") or "" for link in person.page.locator(".info .description a").all()}
    assert len(links) > 5
    for link in links:
        assert client.request("GET", link).headers["location"] == f"https://docs.newstore.net{link.split('#')[0]}"


def test_on_a_phone_nothing_is_wider_than_the_page_and_every_control_fits_a_finger(enter: Enter, tenant: str) -> None:
    person = enter(**PHONE)
    person.open()
    person.authorizes(make_token(tenant))
    for method in ("GET", "POST"):
        assert person.tries(method).status == "200"
    controls = person.page.locator("button:visible, select:visible, input:visible, .download-contents:visible")
    small = [
        control.evaluate("(each) => each.outerHTML.slice(0, 120)")
        for control in controls.all()
        if (box := control.bounding_box()) and min(box["width"], box["height"]) < 44
    ]
    assert small == []
    assert not person.scrolls_sideways()
    person.chooses(EXTENSIONS_TITLE)
    for number in range(2):
        person.operation("GET", number).locator(".opblock-summary-control").click()
    assert not person.scrolls_sideways()


def test_a_note_is_shown_as_the_text_that_it_is(enter: Enter, tmp_path: Path, redis_url: str) -> None:
    note = "Tokens: <img src=x onerror=alert()> `make token`"
    with Service(tmp_path / "log", redis_url, UI_NOTE=note) as service:
        person = enter(service.port)
        person.open()
        expect(person.page.locator(".note")).to_have_text(note)


def test_in_production_there_is_no_note(person: Person) -> None:
    person.open()
    assert person.page.locator(".note").count() == 0
    assert "bin/serve" not in person.page.locator("body").inner_text()
