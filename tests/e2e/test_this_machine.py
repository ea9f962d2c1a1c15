"""The first minute: this very machine on screen, changing by itself."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from itertools import pairwise

import psycopg2
import pytest
from playwright.sync_api import expect

from sentinel_site import instance
from tests.e2e.product import until

AGENT_INTERVAL = 10.0  # seconds, as `manage.py up` sets it
ON_THE_WAY = 2.5  # seconds: a report's jitter, the hint's coalescing and the page's own jitter

# Notes when each of the values' times, and each chart's figure, changes.
WATCH = """() => {
  window.seen = {};
  const look = () => {
    for (const meter of document.querySelectorAll("#vitals .meter")) {
      const name = meter.querySelector("span").textContent;
      note(name, meter.querySelector("time").dateTime);
    }
  };
  const note = (name, value) => {
    const list = (window.seen[name] ??= []);
    if (list.at(-1)?.value !== value) list.push({value, at: performance.now() / 1000});
  };
  const vitals = document.getElementById("vitals");
  new MutationObserver(look).observe(vitals, {childList: true, subtree: true});
  look();
}"""


@pytest.fixture
def window(visit, product):
    """Behind the link that was printed at the start, once; later tests make their own."""
    visitor = visit()
    link = product.manage("signin_link", "--email", "owner@example.org")
    visitor.page.goto(link)
    visitor.page.wait_for_url("**/o/my-cloud/")
    return visitor


def test_the_printed_link_leads_to_this_machine(visit, product):
    visitor = visit()
    visitor.page.goto(product.signin_link)
    visitor.page.wait_for_url("**/o/my-cloud/")
    row = visitor.page.locator("#servers tbody tr")
    if not row.count():  # the first report is on its way; the page says so by itself
        visitor.page.get_by_role("link", name="Open the dashboard").click(timeout=20_000)
    expect(row).to_have_count(1)
    expect(row).to_contain_text(socket.gethostname())
    for label in ("CPU", "Memory", "Disk"):
        expect(row.locator(f"[data-label={label}]")).to_have_text(re.compile(r"^\d+(\.\d+)? %$"))
    expect(row.locator("[data-label=Load]")).to_have_text(re.compile(r"^\d+(\.\d+)?$"))
    expect(row.locator("[data-label=Report]")).to_contain_text("ago")
    visitor.page.goto(product.signin_link)
    expect(visitor.page.locator("h1")).to_contain_text("used up or expired")
    visitor.expects("status of 404")


def test_its_values_change_with_every_report_without_a_reload(window, figure):
    page = window.page
    page.locator("#servers a.rowlink").click()
    window.is_live()
    window.mark()
    expect(page.locator("#fig-load")).to_have_text(re.compile(r"\d"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(WATCH)
    changed_twice = "Object.values(window.seen).every((list) => list.length >= 3)"
    until(lambda: page.evaluate(changed_twice), 45, "every value changed twice")
    seen = page.evaluate("window.seen")
    assert {"CPU", "Memory", "Disk /"} <= set(seen)
    for name, changes in seen.items():
        gaps = [b["at"] - a["at"] for a, b in pairwise(changes)]
        assert max(gaps) <= AGENT_INTERVAL + ON_THE_WAY, f"{name}: {gaps}"
        figure(f"a new value of {name} every {', '.join(f'{gap:.1f}' for gap in gaps)} s")
    for chart in ("cpu", "memory", "disk", "load"):
        assert any(f"measurement={chart}" in url for url in asked), f"{chart} was not redrawn"
    assert window.was_not_reloaded()


def test_a_line_that_a_service_logs_appears_among_its_last_log_events(window, product):
    page = window.page
    page.locator("#servers a.rowlink").click()
    page.get_by_role("link", name="OpenStack logs").click()
    window.is_live()
    window.mark()
    phrase = "eleven purple lighthouses"
    url = instance.environment(product.state_dir)["DATABASE_URL"]
    connection = psycopg2.connect(url)
    with closing(connection), connection.cursor() as cursor, pytest.raises(psycopg2.DataError):
        cursor.execute("SELECT %s::int", [phrase])
    line = page.locator("#log-lines li", has_text=phrase).first
    expect(line).to_be_visible(timeout=1000 * (AGENT_INTERVAL + 5))
    expect(line).to_contain_text("postgresql")
    assert window.was_not_reloaded()
