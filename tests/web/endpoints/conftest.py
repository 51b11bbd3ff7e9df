"""Fixtures: Swagger UI in a real browser."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage

from tests.contract import PATH
from tests.processes import Service
from tests.web.conftest import HOST
from tests.web.endpoints.swagger_ui_page import SwaggerUi

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
