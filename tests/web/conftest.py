"""A real browser, in which the service has a host name that is not localhost."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.processes import skip_locally

HOST = "oms.example"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium-headless-shell")
    if chromium is None:
        skip_locally("chromium-headless-shell is not installed")
    # Only this machine is reachable.
    rules = f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[rules])
        yield browser
        browser.close()
