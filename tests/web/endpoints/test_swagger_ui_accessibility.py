"""Swagger UI for people who use a keyboard, a screen reader, a dark scheme or a phone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.contract import PATH, Client
from tests.processes import ROOT, Service, make_token, skip_locally
from tests.web.endpoints.conftest import NewUi
from tests.web.endpoints.swagger_ui_page import EXTENSIONS_TITLE, OFREP_TITLE, PHONE, TITLE, SwaggerUi

AXE = ROOT / "docs" / "examples" / "node_modules" / "axe-core" / "axe.min.js"
CONTROLS = "a[href], button, select, input, textarea, [role=button], .download-contents, .copy-to-clipboard:has(> svg)"

# What a keyboard user gets from the element that has the focus.
FOCUSED = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    number: element.dataset.number,
    isControl: element !== document.body,
    isInDialog: Boolean(element.closest("dialog")),
    isMarked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && style.opacity === "1",
    isVisible: box.width > 0 && box.height > 0 && element.checkVisibility(),
    html: element.outerHTML.slice(0, 120),
  };
}"""

# Opens all that is closed, and returns true if nothing was. Runs in the page: hundreds of clicks from outside are slow.
OPEN_EVERYTHING = """() => {
  const closed = document.querySelectorAll([
    ".opblock:not(.is-open) .opblock-summary-control",
    ".try-out__btn:not(.cancel)",
    "[role=tab][data-name=model][aria-selected=false]",
    ".model-box-control[aria-expanded=false]",
  ].join());
  closed.forEach((each) => each.click());
  const operations = [...document.querySelectorAll(".opblock")];
  return closed.length === 0 && operations.length > 0 && operations.every((each) => each.querySelector(".cancel"));
}"""


def find_violations(ui: SwaggerUi) -> list[str]:
    """Return what axe finds on the page as it is now, with the elements."""
    if not AXE.exists():
        skip_locally("docs/examples/node_modules is not there: npm ci --prefix docs/examples")
    ui.page.evaluate(AXE.read_text())
    result = ui.page.evaluate("axe.run({resultTypes: ['violations'], preload: false})")
    assert result["passes"], "axe has checked nothing"
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:120]}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


def open_everything(ui: SwaggerUi) -> None:
    """Open each operation of the document, its schemas, and the models."""
    ui.page.wait_for_function(OPEN_EVERYTHING)


def execute_without_key(ui: SwaggerUi) -> None:
    """Try to evaluate a flag without its key, and wait for the errors."""
    ui.choose_document(OFREP_TITLE)
    block = ui.try_out("POST")
    block.get_by_label("key", exact=True).fill("")
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".validation-errors")).to_be_visible()


# axe adds styles to the page, and cannot judge colours during a transition.
FOR_AXE = {"bypass_csp": True, "reduced_motion": "reduce"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_closed_and_open_documents(new_ui: NewUi, scheme: str) -> None:
    ui = new_ui(color_scheme=scheme, **FOR_AXE)
    ui.open()
    for title in ui.titles():
        ui.choose_document(title)
        assert (title, find_violations(ui)) == (title, [])
        open_everything(ui)
        assert (title, find_violations(ui)) == (title, [])


@pytest.mark.parametrize(("scheme", "device"), [("light", {}), ("dark", PHONE)], ids=["desktop-light", "phone-dark"])
def test_axe_finds_nothing_in_the_dialog_and_answers(
    new_ui: NewUi, tenant: str, scheme: str, device: dict[str, Any]
) -> None:
    ui = new_ui(color_scheme=scheme, **device, **FOR_AXE)
    ui.open()
    for step in (ui.page.reload, lambda: ui.authorize(make_token(tenant))):
        step()
        ui.page.get_by_role("button", name="Authorize").click()
        assert find_violations(ui) == []
        ui.page.keyboard.press("Escape")
    assert ui.execute("POST", '{"enabled": true}').status == "200"
    assert find_violations(ui) == []
    assert ui.execute("POST", "{}").status == "400"
    ui.choose_document(EXTENSIONS_TITLE)
    EventLog(ui).start()
    assert find_violations(ui) == []
    execute_without_key(ui)
    assert find_violations(ui) == []


def test_dark_scheme_of_the_system_is_followed(new_ui: NewUi) -> None:
    ui = new_ui(color_scheme="light")
    ui.open()
    background = "getComputedStyle(document.body).backgroundColor"
    assert ui.page.evaluate(background) == "rgb(250, 250, 250)"
    ui.page.emulate_media(color_scheme="dark")
    assert ui.page.evaluate(background) == "rgb(22, 25, 31)"


def walk(ui: SwaggerUi) -> Iterator[dict[str, Any]]:
    """Press Tab and yield what has the focus, until it is where it was before."""
    seen = set()
    while True:
        ui.page.keyboard.press("Tab")
        focused = ui.page.evaluate(FOCUSED)
        if not focused["isControl"] or (focused["number"] is not None and focused["number"] in seen):
            return
        seen.add(focused["number"])
        yield focused


def test_each_control_is_reachable_and_marked_by_keyboard(ui: SwaggerUi, tenant: str) -> None:
    ui.open()
    ui.authorize(make_token(tenant))
    ui.choose_document(EXTENSIONS_TITLE)
    open_everything(ui)
    ui.execute("GET")
    ui.page.reload()  # the walk starts at the top
    ui.expect_document(EXTENSIONS_TITLE)
    open_everything(ui)
    ui.execute("GET")
    controls = ui.page.locator(CONTROLS).filter(visible=True)
    for number, control in enumerate(controls.all()):
        control.evaluate("(element, number) => { element.dataset.number = number; }", number)
    ui.page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    walked = list(walk(ui))
    assert [each["html"] for each in walked if not (each["isMarked"] and each["isVisible"])] == []
    missed = {str(number) for number in range(controls.count())} - {each["number"] for each in walked}
    assert [controls.nth(int(number)).evaluate("(each) => each.outerHTML.slice(0, 120)") for number in missed] == []
    assert len(walked) > 40


def test_copy_and_download_work_by_keyboard(new_ui: NewUi, tenant: str) -> None:
    # Browsers let a page read the clipboard only on localhost and with TLS.
    ui = new_ui(host="127.0.0.1", permissions=["clipboard-read", "clipboard-write"])
    ui.open()
    ui.authorize(make_token(tenant))
    shown = ui.execute("GET")
    block = ui.operation("GET")
    for name, copied in (("Copy the path", PATH.removeprefix("/v0")), ("Copy", shown.curl)):
        block.get_by_role("button", name=name, exact=True).first.focus()
        ui.page.keyboard.press("Enter")
        assert ui.page.evaluate("navigator.clipboard.readText()").split() == copied.split()
    block.get_by_role("button", name="Download").focus()
    with ui.page.expect_download() as download:
        ui.page.keyboard.press("Space")
    assert "enabled" in download.value.path().read_text()


@pytest.mark.parametrize("name", ["Authorize", "authorization button unlocked"])
@pytest.mark.parametrize("leave", ["Escape", "Close", "Close the dialog"])
def test_dialog_keeps_the_focus_and_returns_it(ui: SwaggerUi, name: str, leave: str) -> None:
    ui.open()
    opener = ui.page.get_by_role("button", name=name).first
    opener.focus()
    ui.page.keyboard.press("Enter")
    dialog = ui.page.get_by_role("dialog", name="Available authorizations")
    expect(dialog.get_by_label("Value")).to_be_focused()
    walked = []
    for _ in range(8):
        ui.page.keyboard.press("Tab")
        walked.append(ui.page.evaluate(FOCUSED))
    assert [each["html"] for each in walked if each["isControl"] and not each["isInDialog"]] == []
    if leave == "Escape":
        ui.page.keyboard.press("Escape")
    else:
        dialog.get_by_role("button", name=leave, exact=True).focus()
        ui.page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()


@pytest.mark.parametrize("pasted", ["Bearer {}", "  bearer  {}\n", " {} "])
def test_pasted_scheme_before_the_token_is_accepted(ui: SwaggerUi, tenant: str, pasted: str) -> None:
    token = make_token(tenant)
    ui.open()
    ui.authorize(pasted.format(token))
    answer = ui.execute("GET")
    assert answer.status == "200"
    assert f"Authorization: Bearer {token}'" in answer.curl


def test_screen_reader_hears_of_each_answer(ui: SwaggerUi) -> None:
    ui.open()
    assert ui.execute("GET").status == "401"
    expect(ui.page.get_by_role("status")).to_have_text("Response: 401")
    ui.page.route(f"**{PATH}", lambda route: route.abort())
    ui.operation("GET").get_by_role("button", name="Execute").click()
    expect(ui.page.get_by_role("status")).to_have_text("Response: no answer")


def test_summaries_are_readable_on_a_phone(new_ui: NewUi) -> None:
    ui = new_ui(**PHONE)
    ui.open()
    for title in ui.titles():
        ui.choose_document(title)
        for summary in ui.page.locator(".opblock-summary").all():
            for part in (".opblock-summary-path", ".opblock-summary-description"):
                expect(summary.locator(part)).to_be_visible()
                assert summary.locator(part).evaluate("(each) => each.scrollWidth <= each.clientWidth")
            box = summary.locator(".opblock-summary-description").bounding_box()
            assert box
            assert box["width"] > 200
        open_everything(ui)
        assert not ui.scrolls_sideways()


def overlaps(one: Locator, other: Locator) -> bool:
    a, b = one.bounding_box(), other.bounding_box()
    assert a
    assert b
    return (
        a["x"] < b["x"] + b["width"]
        and b["x"] < a["x"] + a["width"]
        and a["y"] < b["y"] + b["height"]
        and b["y"] < a["y"] + a["height"]
    )


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_copy_and_download_cover_no_text(new_ui: NewUi, tenant: str, options: dict[str, Any]) -> None:
    ui = new_ui(**options)
    ui.open()
    ui.authorize(make_token(tenant))
    ui.execute("GET")
    block = ui.operation("GET")
    buttons = block.locator(".copy-to-clipboard, .download-contents").filter(visible=True).all()
    texts = block.locator("pre, h4, h5").filter(visible=True).all()
    assert len(buttons) >= 3
    assert not any(overlaps(button, text) for button in buttons for text in texts)


def test_answer_disappears_while_the_next_one_is_awaited(ui: SwaggerUi, tenant: str, client: Client) -> None:
    ui.open()
    ui.authorize(make_token(tenant))
    assert ui.execute("GET").body == {"enabled": False}
    client.change(True)
    held: list[Any] = []
    ui.page.route(f"**{PATH}", lambda route: held.append(route))  # noqa: PLW0108 - a method takes no attributes
    block = ui.operation("GET")
    with ui.page.expect_request(f"**{PATH}"):
        block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table")).to_have_count(0)
    expect(block.locator(".loading")).to_have_count(1)
    held[0].continue_()
    expect(block.locator(".live-responses-table")).to_contain_text('"enabled": true')
    expect(block.locator(".loading")).to_have_count(0)


def test_answer_disappears_if_the_next_request_is_invalid(ui: SwaggerUi, tenant: str) -> None:
    ui.open()
    ui.authorize(make_token(tenant))
    ui.choose_document(OFREP_TITLE)
    assert ui.execute("POST").status == "200"
    execute_without_key(ui)
    expect(ui.operation("POST").locator(".live-responses-table")).to_have_count(0)


def test_answer_disappears_with_its_document(ui: SwaggerUi, tenant: str) -> None:
    """Two documents have an operation in common."""
    contract = (ROOT / "openapi.yaml").read_text().replace(f"title: {TITLE}", f"title: {EXTENSIONS_TITLE}")
    ui.page.route("**/extensions.yaml", lambda route: route.fulfill(body=contract))
    ui.open()
    ui.authorize(make_token(tenant))
    ui.execute("GET")
    ui.choose_document(EXTENSIONS_TITLE)
    expect(ui.operation("GET")).to_have_class(re.compile("is-open"))
    expect(ui.operation("GET").locator(".response").first).to_be_visible()
    expect(ui.operation("GET").locator(".live-responses-table")).to_have_count(0)


class EventLog:
    """The panel with the events of the operation `/events`."""

    def __init__(self, ui: SwaggerUi) -> None:
        self.block = ui.try_out("GET", 1)
        self.panel = self.block.locator(".event-log")
        self.events = self.panel.locator("pre")
        self.status = self.panel.get_by_role("status")

    def start(self, number_of_events: int = 1) -> None:
        self.block.get_by_role("button", name="Execute").click()
        expect(self.events).to_have_count(number_of_events)
        expect(self.status).to_contain_text("Connected.")


@pytest.fixture
def extensions_ui(ui: SwaggerUi, tenant: str) -> SwaggerUi:
    ui.open()
    ui.authorize(make_token(tenant))
    ui.choose_document(EXTENSIONS_TITLE)
    return ui


def test_events_appear_as_they_are_made(extensions_ui: SwaggerUi, client: Client) -> None:
    log = EventLog(extensions_ui)
    log.start()
    expect(log.events).to_contain_text('"version": 0')
    client.change(True)
    expect(log.events).to_have_count(2)
    expect(log.events.first).to_contain_text('"version": 1, "enabled": true')
    expect(log.block.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert "/events" in log.block.locator(".curl").inner_text()
    with extensions_ui.page.expect_event("requestfailed"):
        log.panel.get_by_role("button", name="Stop").click()
    expect(log.status).to_have_text("Stopped.")
    expect(log.panel.get_by_role("button")).to_have_count(0)
    expect(log.events).to_have_count(2)


@pytest.mark.parametrize("leave", ["Execute", "Clear", "close the operation", "choose a document"])
def test_stream_ends_if_its_panel_disappears(extensions_ui: SwaggerUi, leave: str) -> None:
    log = EventLog(extensions_ui)
    log.start()
    with extensions_ui.page.expect_event("requestfailed"):
        if leave == "close the operation":
            log.block.locator(".opblock-summary-control").click()
        elif leave == "choose a document":
            extensions_ui.choose_document(TITLE)
        else:
            log.block.get_by_role("button", name=leave).click()
    if leave == "Execute":
        expect(log.events).to_have_count(1)
        expect(log.status).to_contain_text("Connected.")


def test_stream_stops_at_logout(extensions_ui: SwaggerUi, tenant: str) -> None:
    page, log = extensions_ui.page, EventLog(extensions_ui)
    log.start()
    page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
    with page.expect_event("requestfailed"):
        page.get_by_role("dialog").get_by_role("button", name="Logout").click()
    page.keyboard.press("Escape")
    expect(log.status).to_have_text("Stopped.")
    extensions_ui.authorize(make_token(tenant))
    log.start()


def test_stream_resumes_after_the_given_event(extensions_ui: SwaggerUi, client: Client) -> None:
    client.change(True, False)
    log = EventLog(extensions_ui)
    log.block.get_by_label("Last-Event-ID", exact=True).fill("1")
    log.start()
    expect(log.events).to_contain_text('"version": 2')


def test_only_the_newest_100_events_are_kept(extensions_ui: SwaggerUi, client: Client) -> None:
    log = EventLog(extensions_ui)
    log.start()
    client.change(*[number % 2 == 0 for number in range(101)])
    expect(log.events.first).to_contain_text('"version": 101')
    expect(log.events.last).to_contain_text('"version": 2,')
    expect(log.events).to_have_count(100)


def test_end_of_the_stream_is_shown(new_ui: NewUi, tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url) as service:
        ui = new_ui(service.port)
        ui.open()
        ui.authorize(make_token(tenant))
        ui.choose_document(EXTENSIONS_TITLE)
        log = EventLog(ui)
        log.start()
    expect(log.status).to_have_text("The server has ended the stream. Execute again to continue.")
    expect(log.events).to_have_count(1)


def test_rejected_stream_is_shown_as_an_error(ui: SwaggerUi) -> None:
    ui.open()
    ui.choose_document(EXTENSIONS_TITLE)
    answer = ui.execute("GET", operation=1)
    assert (answer.status, answer.body["error_code"]) == ("401", "unauthorized")


# The selectors of the page's style sheet and of `ATTRIBUTES` that match nothing on the page as it is now.
UNMATCHED = """async () => {
  const selectors = ({ cssRules = [] }) => [...cssRules].flatMap((rule) => rule.selectorText || selectors(rule));
  const sheet = [...document.styleSheets].find(({ href }) => href?.endsWith("/page.css"));
  const { ATTRIBUTES } = await import("./accessibility.js");
  return [...selectors(sheet), ...Object.keys(ATTRIBUTES)]
    .flatMap((each) => each.split(", "))
    .map((each) => each.replace(/::?(after|backdrop|focus-visible)/, "").trim() || "*")
    .filter((each) => !document.querySelector(each));
}"""


def test_each_class_of_swagger_ui_that_the_page_names_exists(
    new_ui: NewUi, tmp_path: Path, redis_url: str, tenant: str
) -> None:
    """An upgrade of Swagger UI may rename classes. The page's own rules would then have no effect."""
    unmatched: list[set[str]] = []

    def look() -> None:
        unmatched.append(set(ui.page.evaluate(UNMATCHED)))

    def look_while_loading(route: Route) -> None:
        look()
        route.continue_()

    with Service(tmp_path / "log", redis_url, UI_NOTE="A note.") as service:
        ui = new_ui(service.port)
        ui.page.route(f"**{PATH}", look_while_loading)
        ui.open()
        for step in (ui.page.reload, lambda: ui.authorize(make_token(tenant))):
            step()
            ui.page.get_by_role("button", name="Authorize").click()
            look()
            ui.page.keyboard.press("Escape")
        for title in ui.titles():
            ui.choose_document(title)
            open_everything(ui)
            look()
        execute_without_key(ui)
        look()
        ui.choose_document(EXTENSIONS_TITLE)
        EventLog(ui).start()
        look()
        ui.choose_document(TITLE)
        ui.execute("GET")
        look()
    assert set.intersection(*unmatched) == set()
