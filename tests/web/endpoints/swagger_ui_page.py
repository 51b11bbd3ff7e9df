"""The page of Swagger UI, as its tests use it."""

import json
import re
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.contract import CONTRACT, EXTENSIONS, OFREP

TITLE = CONTRACT["info"]["title"]
EXTENSIONS_TITLE = EXTENSIONS["info"]["title"]
OFREP_TITLE = OFREP["info"]["title"]
CLIENT_TITLE = "External OMS Config API, for clients"  # in the selector; the document has the contract's title
PHONE = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True}


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

    def titles(self) -> list[str]:
        """Return the titles of all documents in the selector."""
        return self.page.get_by_label("Select a definition").locator("option").all_inner_texts()

    def choose_document(self, title: str) -> None:
        self.page.get_by_label("Select a definition").select_option(label=title)
        self.expect_document(TITLE if title == CLIENT_TITLE else title)

    def authorize(self, token: str) -> None:
        self.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".modal-ux")
        dialog.get_by_role("textbox").fill(token)
        dialog.get_by_role("button", name="Authorize").click()
        dialog.get_by_role("button", name="Close", exact=True).click()

    def is_authorized(self) -> bool:
        return "unlocked" not in (self.page.locator(".auth-wrapper .authorize").get_attribute("class") or "")

    def execute(self, method: str, body: str | None = None, operation: int = 0) -> ShownAnswer:
        """Execute an operation and return the answer that the page shows for it."""
        block = self.try_out(method, operation)
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

    def try_out(self, method: str, operation: int = 0) -> Locator:
        """Open an operation so that it can be executed."""
        block = self.operation(method, operation)
        if "is-open" not in (block.get_attribute("class") or ""):
            block.locator(".opblock-summary-control").click()
        if not block.get_by_role("button", name="Execute").is_visible():
            block.get_by_role("button", name="Try it out").click()
        return block

    def operation(self, method: str, number: int = 0) -> Locator:
        return self.page.locator(f".opblock-{method.lower()}").nth(number)

    def scrolls_sideways(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))
