"""Every page of the URL configuration, in light and dark, on a desktop and a phone."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver
from playwright.sync_api import expect

from agent_client.wire import ServiceState
from sentinel_site import urls, urls_public
from tests.e2e.product import TICK, Machine, until

DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
GROUND = "getComputedStyle(document.body).backgroundColor"

#: Routes that no person looks at: they change something, or answer programs.
NOT_PAGES = [
    r"^o/charts/",  # JSON for charts
    r"^o/knocks/$",  # a part of the page of keys
    r"^o/notices/(read/)?$",  # what the bell of every page holds
    r"/(acknowledge|resolve|delete|test|invite|role|remove|withdraw|issue|revoke)/$",
    r"/(assign|comment|release|shelve|unshelve|pause|resend|end)/$",
    r"^o/rules/(preview|file/download)/$",
    r"\.csv$",
    r"^\^?(alerta|alertmanager|ping)\b",  # doors of other tools and of jobs
    r"^(o/)?api/v1/",
    r"^(\^/\*)?(metrics|logs|plugins)\b",  # doors of the original agents
    r"^install",
    r"^theme/$",
    r"^signin/",
    r"^staff/",  # Django's admin, with pages of its own
    r"^favicon\.ico$",
    r"^(healthz|readyz)$",
    r"^api/schema/$",
    r"^2fa/recovery-codes/download/$",
    r"^2fa/webauthn/keys/<int:pk>/(remove|edit)/$",
]
#: Shown to people who are not signed in.
DOORS = [
    "",
    "status/",
    "login/",
    "signup/",
    "password/reset/",
    "password/reset/done/",
    "confirm-email/",
]
#: Pages that lead elsewhere, as there is nothing to be done there now.
LEADING_ELSEWHERE = [
    "",
    "home/",
    "logout/",
    "login/",
    "signup/",
    "login/code/confirm/",
    "password/set/",
    "2fa/authenticate/",
]
#: There only for those who have a second factor.
NEEDING_A_SECOND_FACTOR = ["2fa/recovery-codes/", "2fa/totp/deactivate/"]


def routes(patterns: list[Any], before: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route


def is_page(route: str) -> bool:
    return not any(re.search(pattern, route) for pattern in NOT_PAGES)


TENANT = sorted({r for r in routes(urls.urlpatterns, "o/") if is_page(r)})
PUBLIC = sorted({r for r in routes(urls_public.urlpatterns) if is_page(r)})
TABS = [
    f"o/servers/<int:pk>/?tab={tab}" for tab in ("alerts", "vitals", "services", "logs", "agent")
]


class Inline(HTMLParser):
    """Finds what a strict policy forbids: scripts and styles within the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        is_data = names.get("type") == "application/json"  # which no browser runs
        if tag == "style" or (tag == "script" and "src" not in names and not is_data):
            self.found.append(f"<{tag}> in line {self.getpos()[0]}")
        for name, value in names.items():
            if name == "style" or (name.startswith("on") and tag != "svg") or "hx-on" in name:
                self.found.append(f"{name}={value!r} in line {self.getpos()[0]}")
            if value and value.strip().lower().startswith("javascript:"):
                self.found.append(f"{name}={value!r}")


@pytest.fixture(scope="module")
def furnished(organization):
    """An organization with something on every page: paths of it by route."""
    host = f"stage-{uuid.uuid4().hex[:6]}"
    machine = Machine(organization, host)
    group = organization.post("cloud-groups/", name="Frankfurt", location="Frankfurt am Main")
    rule = organization.rule("CPU on stage", advice="Look at `top`.")
    for minute in range(30, 0, -1):
        machine.report(at=time.time() - 60 * minute)
    machine.says(
        95,
        events=(
            ("critical", "The stage is on fire\nTraceback (most recent call last):\n  all of it"),
            ("error", "A lamp went out [req-7a1b2c3d-0000-4000-8000-000000000001]"),
            ("warning", "The curtain " + "is rather long and " * 30 + "wide"),
            ("info", "The play begins"),
        ),
        services=(
            ServiceState("nova-compute", "nova", "down"),
            ServiceState("neutron-agent", "neutron", "up", workers=4),
        ),
        specs={
            "os": {"name": "Debian GNU/Linux", "version": "12"},
            "kernel": "6.1.0",
            "architecture": "x86_64",
            "processor": {"model": "AMD EPYC 9654", "threads": 2, "cores": 1},
            "memory": {"total": 8_000_000_000},
            "storage": [{"device": "vda", "size": 100_000_000_000}],
            "boot_at": time.time() - 86_400,
            "agent_version": "2.0.0",
        },
    )
    server = organization.server(host)["id"]
    organization.patch(f"servers/{server}/", group=group["id"])
    (alert,) = until(lambda: organization.alerts("CPU on stage"), 3 * TICK, "an alert is open")
    channel = next(c for c in organization.get("channels/")["results"] if c["kind"] == "slack")
    later = datetime.now(UTC) + timedelta(days=300)
    planned = {"kind": "maintenance", "reason": "A new roof", "group": group["id"]}
    weekly = {"rule": "FREQ=WEEKLY", "zone": "Europe/Berlin", "lasts": 3600}
    step = {"after": 0, "channels": [channel["id"]]}
    ids = {
        "servers": server,
        "groups": group["id"],
        "incidents": alert["incident"],
        "rules": rule["id"],
        "rules/alerts": alert["id"],
        "channels": channel["id"],
        "check-ins": organization.post("check-ins/", name="The bell", period=86_400)["id"],
        "maintenance": organization.post("suppressions/", **planned, since=later.isoformat())["id"],
        "maintenance/again": organization.post(
            "recurrences/", **planned, **weekly, begins=later.isoformat()
        )["id"],
        "routes": organization.post("routes/", name="Stage", enabled=False, steps=[step])["id"],
    }

    def path(route: str) -> str:
        route = route.replace("<slug:kind>", "slack")
        if "<int:pk>" in route:
            before, _, after = route.removeprefix("o/").partition("/<int:pk>")
            route = f"o/{before}/{ids[before]}{after}"
        return f"/o/{organization.slug}/" + route.removeprefix("o/")

    return path


@pytest.fixture(scope="module")
def signed_in(browser, product, organization):
    """The cookies of Alice."""
    from tests.e2e.conftest import Visitor

    context = browser.new_context()
    Visitor(context).sign_in(product, organization.email)
    state = context.storage_state()
    context.close()
    return state


def look_at(visit, url, accepted=(), **options):
    """Open the page in every form, and return the last window with the status of the answer."""
    for viewport in (DESKTOP, PHONE):
        visitor = visit(viewport=viewport, color_scheme="light", **options)
        visitor.expects(*accepted)
        page = visitor.page
        answer = page.goto(url)
        page.wait_for_load_state("load")
        if page.locator("[data-live-chip]").count():
            visitor.is_live()
        inline = Inline()
        inline.feed(answer.text())
        assert inline.found == [], url
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        grounds = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.append(page.evaluate(GROUND))
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, f"{url} scrolls sideways by {wide} px at {viewport['width']} px"
        if not url.endswith("/api/docs/"):  # drawn by Swagger UI, which knows one theme
            assert grounds[0] != grounds[1], f"{url} is as light as it is dark"
    return answer, page


@pytest.mark.parametrize("route", [*TENANT, *TABS])
def test_a_page_of_an_organization_is_clean_in_every_form(
    visit, product, furnished, signed_in, route
):
    answer, _ = look_at(visit, product.url + furnished(route), storage_state=signed_in)
    assert answer.status == 200


@pytest.mark.parametrize("route", [r for r in PUBLIC if "<" not in r])
def test_a_page_about_oneself_is_clean_in_every_form(visit, product, signed_in, route):
    missing = route in NEEDING_A_SECOND_FACTOR
    accepted = ["status of 404"] if missing else []
    answer, page = look_at(
        visit, f"{product.url}/{route}", accepted=accepted, storage_state=signed_in
    )
    assert answer.status == (404 if missing else 200)
    if route not in LEADING_ELSEWHERE and "reauthenticate" not in page.url:
        assert page.url == f"{product.url}/{route}"


@pytest.mark.parametrize("route", DOORS)
def test_a_page_for_strangers_is_clean_in_every_form(visit, product, route):
    answer, page = look_at(visit, f"{product.url}/{route}")
    assert answer.status == 200
    assert page.url == f"{product.url}/{route}"


@pytest.mark.parametrize("path", ["/nowhere/", "/o/{slug}/nowhere/", "/invitations/wrong/"])
def test_a_page_that_is_not_there_says_so_and_is_clean(
    visit, product, organization, signed_in, path
):
    url = product.url + path.format(slug=organization.slug)
    visitor = visit(storage_state=signed_in)
    visitor.expects("status of 404")
    answer = visitor.page.goto(url)
    assert answer.status == 404
    expect(visitor.page.locator("h1")).to_be_visible()
    inline = Inline()
    inline.feed(answer.text())
    assert inline.found == []


def test_the_theme_is_switched_at_once_and_kept(visit, product, furnished, signed_in):
    visitor = visit(storage_state=signed_in, color_scheme="light")
    page = visitor.page
    page.goto(product.url + furnished("o/"))
    light = page.evaluate(GROUND)
    page.locator("summary[aria-label^='You:']").click()
    with page.expect_response("**/theme/") as told:
        page.get_by_role("button", name="Dark", exact=True).first.click()
    assert told.value.status < 300
    dark = page.evaluate(GROUND)
    assert dark != light
    page.goto(product.url + furnished("o/rules/"))
    assert page.evaluate(GROUND) == dark

    elsewhere = visit(storage_state=signed_in, color_scheme="light").page
    elsewhere.goto(product.url + furnished("o/"))
    elsewhere.evaluate("localStorage.clear()")
    elsewhere.reload()
    assert elsewhere.evaluate(GROUND) == dark  # the server knows it, too
    page.locator("summary[aria-label^='You:']").click()
    with page.expect_response("**/theme/"):
        page.get_by_role("button", name="As the system").first.click()
    assert page.evaluate(GROUND) == light


def test_the_palette_finds_a_server_and_goes_there(visit, product, furnished, signed_in):
    page = visit(storage_state=signed_in).page
    page.goto(product.url + furnished("o/rules/"))
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Search or jump to")
    expect(box).to_be_focused()
    box.fill("stage-")
    option = page.get_by_role("option", name=re.compile("^stage-")).first
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(re.compile("^stage-"))
    page.wait_for_load_state("load")  # keys are heard once the page's modules are here
    page.keyboard.press("Control+k")
    box.fill("curtain")
    page.keyboard.press("Enter")
    expect(page.locator("#q")).to_have_value("curtain")
    expect(page.locator("#log-lines li")).to_contain_text(["The curtain is rather long"])


def test_the_log_search_finds_words_and_filters_levels(visit, product, furnished, signed_in):
    page = visit(storage_state=signed_in).page
    page.goto(product.url + furnished("o/logs/"))
    lines = page.locator("#log-lines li")
    expect(lines).to_have_count(4)  # of every level: none is chosen
    page.locator("#q").press_sequentially("lamp out")
    expect(lines).to_have_count(1)
    expect(lines).to_contain_text("A lamp went out")
    page.locator("#q").fill("")
    expect(lines).to_have_count(4)
    for level in ("Critical", "Warning"):
        page.get_by_role("group", name="Levels").get_by_text(level).click()
    expect(lines).to_have_count(2)
    expect(lines.filter(has_text="The stage is on fire")).to_have_count(1)
    expect(lines.filter(has_text="The curtain")).to_have_count(1)
    page.locator("#q").fill("no such words")
    expect(page.get_by_role("heading", name="No line matches")).to_be_visible()
