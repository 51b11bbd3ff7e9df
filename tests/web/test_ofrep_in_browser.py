"""OpenFeature's web provider in a real browser, on a page of another origin than the service."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.contract import FLAGS_PATH, Client
from tests.processes import ROOT, Service, make_token, skip_locally
from tests.waiting import PATIENCE

EXAMPLES = ROOT / "docs" / "examples"
POLL = 5_000  # milliseconds; POLL_INTERVAL of the page
MAX_AGE = 3 * POLL

# Read the flag with the provider's `options`, as a page does when it starts.
READ_FLAG = """async (options) => {
    const { OFREPWebProvider } = await import("@openfeature/ofrep-web-provider");
    const { OpenFeature } = await import("@openfeature/web-sdk");
    await OpenFeature.setProviderAndWait(new OFREPWebProvider(options)).catch(() => {});
    const { value, reason } = OpenFeature.getClient().getBooleanDetails("external_oms.enabled", false);
    return [value, reason];
}"""


class _Handler(SimpleHTTPRequestHandler):
    """Serves the examples without a log."""

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def page_origin() -> Iterator[str]:
    """Serve the page, and the packages that it imports, at an origin."""
    if not (EXAMPLES / "node_modules" / "@openfeature").is_dir():
        skip_locally("docs/examples/node_modules is not complete: npm ci --prefix docs/examples")
    handler = functools.partial(_Handler, directory=str(EXAMPLES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cors_service(tmp_path_factory: pytest.TempPathFactory, redis_url: str, page_origin: str) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("page") / "log", redis_url, CORS_ALLOW_ORIGINS=page_origin) as service:
        yield service


@pytest.fixture
def setting(cors_service: Service, tenant: str) -> Client:
    return cors_service.client(make_token(tenant))


@pytest.fixture
def credentials(cors_service: Service, tenant: str) -> dict[str, Any]:
    """Return the provider's options for the service and the tenant's token."""
    return {"baseUrl": cors_service.url, "headers": [["Authorization", f"Bearer {make_token(tenant)}"]]}


class FlagPage:
    """The example page, with a clock that a test can advance."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE * 1000)
        page.clock.install()
        page.goto(f"{origin}/flag.html")

    def show_flag(self, url: str, token: str) -> None:
        """Fill in the form and submit it."""
        self.page.get_by_label("OMS_CONFIG_URL").fill(url)
        self.page.get_by_label("OMS_CONFIG_TOKEN").fill(token)
        self.page.get_by_role("button").click()

    def expect_shown(self, text: str) -> None:
        expect(self.page.get_by_role("status")).to_have_text(text, timeout=PATIENCE * 1000)

    def set_reachable(self, reachable: bool) -> None:
        """Let requests for flags through, or fail them as a network does."""
        pattern = f"**{FLAGS_PATH}"
        if reachable:
            self.page.unroute(pattern)
        else:
            self.page.route(pattern, lambda route: route.abort())


@pytest.fixture
def flag_page(browser: Browser, page_origin: str) -> Iterator[FlagPage]:
    with browser.new_context() as context:
        yield FlagPage(context.new_page(), page_origin)


def test_page_shows_a_change_after_one_poll_interval(
    flag_page: FlagPage, cors_service: Service, setting: Client, tenant: str
) -> None:
    flag_page.show_flag(cors_service.url, make_token(tenant))
    flag_page.expect_shown("off")
    for enabled in (True, False):
        setting.change(enabled)
        flag_page.page.clock.fast_forward(POLL)
        flag_page.expect_shown("on" if enabled else "off")


def test_page_shows_no_value_until_the_service_has_answered(
    flag_page: FlagPage, cors_service: Service, setting: Client, tenant: str
) -> None:
    setting.change(True)
    flag_page.show_flag(cors_service.url, make_token(tenant))
    flag_page.expect_shown("on")
    assert flag_page.page.evaluate("localStorage.length") == 0
    setting.change(False)
    flag_page.page.reload()
    flag_page.set_reachable(False)
    with flag_page.page.expect_console_message(lambda message: "cannot read the flag" in message.text):
        flag_page.show_flag(cors_service.url, make_token(tenant))
    flag_page.expect_shown("unknown")
    flag_page.set_reachable(True)
    flag_page.page.clock.fast_forward(POLL)
    flag_page.expect_shown("off")


def test_page_shows_no_value_that_was_not_confirmed_for_long(
    flag_page: FlagPage, cors_service: Service, setting: Client, tenant: str
) -> None:
    setting.change(True)
    flag_page.show_flag(cors_service.url, make_token(tenant))
    flag_page.expect_shown("on")
    flag_page.set_reachable(False)
    flag_page.page.clock.fast_forward(MAX_AGE)
    flag_page.expect_shown("unknown")
    flag_page.set_reachable(True)
    flag_page.page.clock.fast_forward(POLL)
    flag_page.expect_shown("on")


def test_page_continues_with_a_new_token(
    flag_page: FlagPage, cors_service: Service, setting: Client, tenant: str
) -> None:
    setting.change(True)
    with flag_page.page.expect_console_message(lambda message: "cannot read the flag" in message.text):
        flag_page.show_flag(cors_service.url, make_token(tenant, exp=1))
    flag_page.expect_shown("unknown")
    flag_page.page.get_by_label("OMS_CONFIG_TOKEN").fill(make_token(tenant))
    flag_page.page.clock.fast_forward(POLL)
    flag_page.expect_shown("on")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [True, "CACHED"]),
        ({"cacheMode": "network-first"}, [True, "CACHED"]),
        ({"cacheMode": "disabled"}, [False, "ERROR"]),
    ],
    ids=["default", "network-first", "disabled"],
)
def test_provider_starts_with_a_stored_value_unless_that_is_disabled(
    flag_page: FlagPage, setting: Client, credentials: dict[str, Any], options: dict[str, str], expected: list[object]
) -> None:
    setting.change(True)
    assert flag_page.page.evaluate(READ_FLAG, credentials | options) == [True, "STATIC"]
    setting.change(False)
    flag_page.set_reachable(False)
    flag_page.page.reload()
    assert flag_page.page.evaluate(READ_FLAG, credentials | options) == expected
