"""One real instance for all of these tests, a browser, a mailbox and a Slack webhook."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.e2e.product import PASSWORD, Organization, Product, until
from tests.e2e.receivers import Mailbox, Slack

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1440, "height": 900}

expect.set_options(timeout=10_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in item.path.as_posix() and not item.get_closest_marker("chaos"):
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was measured on the way, and where pictures of failures lie."""
    reports = [r for found in terminalreporter.stats.values() for r in found]
    told = {
        text
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name in ("figure", "picture")
    }
    if told:
        terminalreporter.section("end to end")
        for text in sorted(told):
            terminalreporter.write_line(text)


_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def figure(record_property: Any) -> Callable[[str], None]:
    """Note a measured number; all are shown at the end."""
    return lambda text: record_property("figure", text)


@pytest.fixture(scope="package")
def mailbox() -> Iterator[Mailbox]:
    with Mailbox().open() as it:
        yield it


@pytest.fixture(scope="package")
def slack() -> Iterator[Slack]:
    with Slack().open() as it:
        yield it


@pytest.fixture(scope="package")
def product(mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product as `make run` starts it, with the agent of this machine."""
    it = Product(tmp_path_factory.mktemp("e2e") / "state", mailbox.port)
    try:
        it.start()
        yield it
    finally:
        it.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def organization(product: Product, slack: Slack) -> Organization:
    """A tenant of this module's own that tells its owner by mail and a Slack webhook."""
    made = product.bootstrap(f"acme-{uuid.uuid4().hex[:6]}")
    made.post("channels/", name="Slack", kind="slack", config={"url": f"{slack.url}/{made.slug}"})
    return made


class Visitor:
    """Somebody's browser window, which takes note of everything that goes wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.accepted: list[re.Pattern[str]] = []
        self.page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        self.page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )

    def expects(self, *patterns: str) -> None:
        """These console errors belong to what the test does, such as cutting the network."""
        self.accepted += [re.compile(pattern) for pattern in patterns]

    def expects_an_outage(self) -> None:
        self.expects("WebSocket connection to", "Failed to load resource", "net::ERR_", "^htmx:")

    @property
    def unexpected(self) -> list[str]:
        return [e for e in self.errors if not any(p.search(e) for p in self.accepted)]

    def sign_in(self, product: Product, email: str) -> None:
        self.page.goto(f"{product.url}/login/")
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(re.compile("/o/|/home/"))

    def is_live(self) -> None:
        expect(self.page.locator("[data-live-chip]")).to_have_text("Live")

    def mark(self) -> None:
        """Leave something behind that a reload would wipe away."""
        self.page.evaluate("window.notReloaded = true")

    def was_not_reloaded(self) -> bool:
        return self.page.evaluate("window.notReloaded === true") is True


@pytest.fixture
def visit(
    browser: Browser, request: pytest.FixtureRequest, record_property: Any
) -> Iterator[Callable[..., Visitor]]:
    """Open a window of a browser of its own; at the end no console may hold an error."""
    visitors: list[Visitor] = []

    def open_window(**options: Any) -> Visitor:
        visitor = Visitor(browser.new_context(**{"viewport": DESKTOP, **options}))
        visitors.append(visitor)
        return visitor

    yield open_window
    unexpected = [error for visitor in visitors for error in visitor.unexpected]
    if request.node.stash.get(_FAILED, True) or unexpected:
        folder = Path(tempfile.mkdtemp(prefix="sentinella-e2e-"))
        for number, visitor in enumerate(visitors):
            path = folder / f"{request.node.name}-{number}.png"
            visitor.page.screenshot(path=path)
            record_property("picture", f"picture of a failure: {path}")
            print(f"picture of a failure: {path}")
    for visitor in visitors:
        visitor.context.close()
    assert unexpected == []


@pytest.fixture
def owner(visit: Callable[..., Visitor], product: Product, organization: Organization) -> Visitor:
    """Alice, signed in, on the dashboard of the module's organization."""
    visitor = visit()
    visitor.sign_in(product, organization.email)
    return visitor


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> None:
    """A test that killed something leaves the product healed to the next one."""
    if "product" in request.fixturenames:
        product: Product = request.getfixturevalue("product")
        until(product.is_whole, 60, "every component is up")
