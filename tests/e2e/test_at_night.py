"""Three in the morning: a phone in one hand, a link in Slack; and the same with a keyboard."""

from __future__ import annotations

import random
import time

import pytest
from playwright.sync_api import expect

from tests.alerts import cascades
from tests.e2e.product import PASSWORD, TICK, until
from tests.e2e.test_pages import PHONE

TAPS = 3  # from the message to the incident that is one's own
THUMB = 44  # pixels; what is tapped is at least as large
NIGHT = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}


class Hand:
    """A thumb on a phone, whose taps are counted."""

    def __init__(self, page):
        self.page = page
        self.taps = 0

    def follows(self, link):
        self.taps += 1
        self.page.goto(link)

    def taps_on(self, button):
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= THUMB
        assert box["y"] > PHONE["height"] / 2, "a thumb reaches the lower half"
        self.taps += 1
        button.tap()


@pytest.fixture(scope="module")
def broken(organization):
    """A cloud whose RabbitMQ has just died: it says so on all its servers."""
    cloud = cascades.cloud("night")
    cloud.computes, cloud.others = cloud.computes[:3], []
    began = time.time() - 1
    organization.sends([host.report(1, -20.0, began) for host in cloud.hosts])
    group = organization.post("cloud-groups/", name="Nightly", location="Frankfurt am Main")
    for host in cloud.hosts:
        server = organization.server(host.name)["id"]
        organization.patch(f"servers/{server}/", group=group["id"])
    cascades.rabbitmq(cloud, random.Random(1), 1e9)  # noqa: S311  a seed, no secret
    for host in cloud.hosts:  # at once, though a real one takes two minutes
        host.down = dict.fromkeys(host.down, (0.0, 1000000000.0))
        host.lines = [(0.5, *line[1:]) for line in host.lines]
    organization.sends([host.report(2, 1.0, began) for host in cloud.hosts])
    return cloud


@pytest.fixture(scope="module")
def told(broken, organization, slack):
    """The one message in Slack, and the link in it."""
    hooks = until(lambda: slack.got(organization.slug), 4 * TICK, "Slack was told")
    text = hooks[0].body["attachments"][0]["blocks"][0]["text"]["text"]
    assert "Probable cause: RabbitMQ" in text
    return text.removeprefix("*<").partition("|")[0]


@pytest.fixture(scope="module")
def signed_in(browser, product, organization):
    """What Alice's browser keeps."""
    from tests.e2e.conftest import Visitor

    context = browser.new_context()
    Visitor(context).sign_in(product, organization.email)
    state = context.storage_state()
    context.close()
    return state


def test_from_the_link_in_slack_to_the_cause_and_taking_it_are_three_taps_at_most(
    visit, told, organization, signed_in
):
    visitor = visit(storage_state=signed_in, **NIGHT)
    page, hand = visitor.page, Hand(visitor.page)
    hand.follows(told)
    cause = page.get_by_role("region", name="Probable cause")
    expect(cause.get_by_text("RabbitMQ", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("heading", level=1)).to_be_in_viewport()
    take = page.get_by_role("button", name="Acknowledge")
    expect(take).to_be_in_viewport()
    hand.taps_on(take)
    expect(page.locator("#incident .head")).to_contain_text("has it since")
    assert hand.taps <= TAPS
    number = int(told.rstrip("/").rpartition("/")[2])
    taken = organization.get(f"incidents/{number}/")
    assert taken["acknowledged_at"]
    # what to do about it is on the same page, and so is what was said
    expect(page.get_by_role("region", name="What to do")).to_contain_text("rabbitmq")
    expect(page.locator("#timeline")).to_contain_text("Acknowledged")


def test_the_link_in_slack_leads_through_the_sign_in_to_its_incident(visit, told, organization):
    page = visit(**NIGHT).page
    page.goto(told)
    page.get_by_label("E-mail").fill(organization.email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").tap()
    page.wait_for_url(told)
    expect(page.get_by_role("region", name="Probable cause")).to_be_visible()


def test_by_keyboard_an_incident_is_found_taken_and_left_for_the_next_one(
    visit, told, broken, organization, signed_in
):
    server = organization.server(broken.controller.name)["id"]
    organization.rule("CPU at night", server=server, window=300, thresholds={"warning": 60})
    now = time.time()
    broken.controller.points.append(("cpu", {"percent": 95.0}, {}, -1, 1e9))
    organization.sends([broken.controller.report(3, 0.0, now)])
    until(lambda: organization.alerts("CPU at night"), 3 * TICK, "another one is open")
    visitor = visit(storage_state=signed_in)
    page, keys = visitor.page, visitor.page.keyboard
    page.goto(f"{organization.url}incidents/")
    visitor.is_live()
    rows = page.locator("#incidents article.inc")
    expect(rows).to_have_count(2)
    keys.press("j")
    keys.press("j")
    expect(rows.nth(1).locator("h2 a")).to_be_focused()
    keys.press("k")
    expect(rows.nth(0).locator("h2 a")).to_be_focused()
    keys.press("j")
    keys.press("a")
    expect(rows.nth(1)).to_contain_text("has it")
    expect(rows.nth(1).locator("h2 a")).to_be_focused()  # though the list was drawn anew
    keys.press("Enter")
    expect(page.locator("h1")).to_contain_text("CPU at night")
    page.wait_for_load_state("load")  # keys are heard once the page's modules are here
    keys.press("k")
    expect(page.locator("h1")).to_contain_text("RabbitMQ")
    page.wait_for_load_state("load")
    keys.press("j")
    expect(page.locator("h1")).to_contain_text("CPU at night")
