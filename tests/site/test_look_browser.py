"""The modules of the pages in a real browser, against drawn scenes and a socket that we hold."""

from __future__ import annotations

import json
import mimetypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from playwright.sync_api import Page, Route, expect, sync_playwright

from accounts.models import Role
from tests.site.cloud import FULL, RABBIT, SILENT
from tests.site.scenes import SCENES, draw
from tests.site.test_look_scenes import _shell_of_the_scene  # noqa: F401  a fixture

pytestmark = pytest.mark.e2e

ORIGIN = "http://sentinella.localhost"
BROWSER = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CSP = "; ".join(
    f"{name} {' '.join(sources)}"
    for name, sources in settings.CONTENT_SECURITY_POLICY["DIRECTIVES"].items()
)


class Site:
    """What the page under test talks to: every answer is made here, and every request kept."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.answers: dict[str, str | Callable[[Route], None]] = {}
        self.sockets: list[Any] = []
        self.refuse_sockets = False
        self.deaf = False
        self.errors: list[str] = []
        page.route("**/*", self._answer)
        page.route_web_socket("**/ws/live", self._socket)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )

    def open(self, scene: str) -> None:
        self.answers["/scene"] = draw(scene)
        self.page.goto(f"{ORIGIN}/scene")

    def hint(self, kind: str) -> None:
        expect(self.page.locator("[data-live-chip]")).to_have_attribute("data-state", "live")
        self.sockets[-1].send(json.dumps({"type": f"{kind}.changed", "id": 7}))

    def times(self, part: str) -> int:
        return sum(part in url for url in self.asked)

    def _socket(self, socket: Any) -> None:
        if self.refuse_sockets:
            socket.close(code=1011)
        else:
            socket.on_message(lambda _: self.deaf or socket.send('{"type": "alive"}'))
            self.sockets.append(socket)

    def _answer(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        self.asked.append(f"{route.request.method} {url.path}?{url.query}")
        headers = {"Content-Security-Policy": CSP}
        for part, answer in self.answers.items():
            if part in f"{url.path}?{url.query}":
                if callable(answer):
                    answer(route)
                else:
                    route.fulfill(body=answer, content_type="text/html", headers=headers)
                return
        if url.path.startswith("/static/"):
            path = settings.BASE_DIR / url.path.lstrip("/")
            route.fulfill(path=path, content_type=_kind(path))
        elif url.path.startswith("/chart/"):
            route.fulfill(json=_chart(url.path, parse_qs(url.query)))
        elif url.path.endswith("/notices/"):
            route.fulfill(body=draw("bell"), content_type="text/html")
        elif "fragment=palette" in url.query:
            route.fulfill(body=draw("palette"), content_type="text/html")
        else:
            route.fulfill(status=204, body="")


def _kind(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _chart(path: str, query: dict[str, list[str]]) -> dict[str, Any]:
    """24 values, one an hour: 1 to 24 percent, or as many events of each severity."""
    end = int(time.time())
    start = end - 86_400
    times = [start + 3600 * hour for hour in range(24)]
    names = ["warning", "error", "critical"] if "events" in path else ["percent"]
    values = list(range(1, 25))
    return {
        "start": start,
        "end": end,
        "step": 3600,
        "series": [
            {"name": name, "label": name, "unit": "", "tags": {}, "times": times, "values": values}
            for name in names
        ],
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(browser: Any) -> Iterator[Site]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    site = Site(context.new_page())
    yield site
    assert site.errors == []
    context.close()


def test_a_hint_refetches_what_shows_that_kind_and_nothing_else(site: Site) -> None:
    site.open("dashboard")
    expect(site.page.locator("[data-live-chip]")).to_have_text("Live")
    _until(lambda: site.times("fragment=fleet") > 0, site.page)  # what changed before it was live
    site.answers["fragment=state"] = "<h1>All is well</h1>"
    before = site.times("fragment=fleet")
    site.hint("incident")
    expect(site.page.locator("#state h1")).to_have_text("All is well")
    assert site.times("fragment=fleet") == before


def test_b_opens_the_bell_and_what_it_showed_is_read_when_it_closes(site: Site) -> None:
    said: list[str] = []

    def keep(route: Route) -> None:
        said.append(route.request.post_data or "")
        route.fulfill(status=204, body="")

    site.answers["/notices/read/"] = keep
    site.open("dashboard")
    bell, count = site.page.locator("#bell"), site.page.locator("#count-bell")
    expect(bell.locator(".notice")).to_have_count(4)
    expect(count).to_have_text("2 unread")
    site.page.keyboard.press("b")
    expect(bell.locator(".notice a").first).to_be_focused()
    expect(bell.locator(".unread")).to_have_count(2)
    assert said == [], "it is being looked at"
    site.page.keyboard.press("Escape")
    expect(count).to_be_hidden()
    expect(bell.locator(".unread")).to_have_count(0)
    _until(lambda: bool(said), site.page)
    assert said == ["upto=40"]
    site.page.keyboard.press("b")
    site.page.keyboard.press("b")
    expect(bell).to_be_hidden()
    assert len(said) == 1, "nothing is new"


def test_an_answer_that_says_the_same_leaves_the_page_alone(site: Site) -> None:
    site.open("dashboard")
    expect(site.page.locator("[data-live-chip]")).to_have_text("Live")
    site.answers["fragment=state"] = "<h1>Same</h1>"
    site.hint("incident")
    expect(site.page.locator("#state h1")).to_have_text("Same")
    site.page.evaluate("document.querySelector('#state h1').dataset.mine = 'yes'")
    asked = site.times("fragment=state")
    site.hint("incident")
    _until(lambda: site.times("fragment=state") > asked, site.page)
    expect(site.page.locator("#state h1[data-mine]")).to_have_count(1)


def test_a_lost_socket_is_shown_and_after_it_the_page_ends_in_the_servers_state(
    site: Site,
) -> None:
    site.open("dashboard")
    chip = site.page.locator("[data-live-chip]")
    expect(chip).to_have_text("Live")
    site.refuse_sockets = True
    site.sockets[-1].close()
    expect(chip).to_have_attribute("data-state", "paused")
    expect(chip).to_contain_text("Live paused")
    site.answers["fragment=state"] = "<h1>Changed meanwhile</h1>"
    site.refuse_sockets = False
    expect(chip).to_have_attribute("data-state", "live", timeout=15_000)
    expect(site.page.locator("#state h1")).to_have_text("Changed meanwhile")


def test_while_paused_the_page_polls(site: Site) -> None:
    site.page.clock.install()
    site.open("dashboard")
    expect(site.page.locator("[data-live-chip]")).to_have_text("Live")
    site.refuse_sockets = True
    site.sockets[-1].close()
    expect(site.page.locator("[data-live-chip]")).to_contain_text("paused")
    site.answers["fragment=state"] = "<h1>Seen by polling</h1>"
    site.page.clock.run_for(12_000)
    expect(site.page.locator("#state h1")).to_have_text("Seen by polling")


def test_a_connection_whose_other_end_is_gone_is_noticed(site: Site) -> None:
    site.page.clock.install()
    site.open("dashboard")
    chip = site.page.locator("[data-live-chip]")
    expect(chip).to_have_text("Live")
    for _ in range(4):  # while it answers, all is well
        site.page.clock.run_for(20_000)
        expect(chip).to_have_text("Live")
    site.deaf = site.refuse_sockets = True
    site.page.clock.run_for(41_000)
    expect(chip).to_contain_text("paused")


def test_acknowledging_sends_the_token_and_refetches(site: Site) -> None:
    site.open("dashboard")
    tokens: list[str | None] = []

    def take(route: Route) -> None:
        tokens.append(route.request.headers.get("x-csrftoken"))
        site.answers["fragment=state"] = "<h1>You have it</h1>"
        route.fulfill(status=204, body="")

    site.answers["318/acknowledge"] = take
    site.page.locator("#incident-318").get_by_role("button", name="Acknowledge").click()
    expect(site.page.locator("#state h1")).to_have_text("You have it")
    assert tokens
    assert tokens[0]


def test_a_problem_becomes_a_notice_and_replaces_nothing(site: Site) -> None:
    site.open("dashboard")
    site.answers["318/acknowledge"] = draw("problem")
    site.page.locator("#incident-318").get_by_role("button", name="Acknowledge").click()
    expect(site.page.locator("#toasts")).to_contain_text("Someone else has it.")
    expect(site.page.locator("#incident-318")).to_be_visible()
    site.page.locator("#toasts").get_by_role("button", name="Close").click()
    expect(site.page.locator("#toasts .toast")).to_have_count(0)


def test_resolving_is_asked_first(site: Site) -> None:
    site.open("incident")
    site.page.get_by_role("button", name="Resolve").click()
    dialog = site.page.locator("#confirm")
    expect(dialog).to_contain_text("If the rule still holds, it opens again.")
    dialog.get_by_role("button", name="Cancel").click()
    assert site.times("318/resolve") == 0
    site.page.get_by_role("button", name="Resolve").click()
    dialog.get_by_role("button", name="Resolve").click()
    _until(lambda: site.times("POST /o/acme/incidents/318/resolve") == 1, site.page)


def test_what_was_unfolded_stays_so_when_the_page_changes(site: Site) -> None:
    site.open("incident-cause")
    symptoms, everything = site.page.locator("#symptoms"), site.page.locator("#all-alerts")
    symptoms.locator("summary").click()
    expect(symptoms.get_by_text("heat-engine is down")).to_be_visible()
    site.answers["fragment=incident"] = draw("incident-cause-again")
    site.hint("incident")
    expect(symptoms.locator("summary")).to_have_text("98 symptoms")
    expect(symptoms).to_have_attribute("open", "")
    expect(everything).not_to_have_attribute("open", "")
    symptoms.locator("summary").click()
    again = draw("incident-cause-again").replace("98 symptoms", "99 symptoms")
    site.answers["fragment=incident"] = again
    site.hint("incident")
    expect(symptoms.locator("summary")).to_have_text("99 symptoms")
    expect(symptoms).not_to_have_attribute("open", "")


def test_an_unfolded_log_line_stays_so_and_not_another_that_came_before_it(site: Site) -> None:
    site.open("logs")
    folded = site.page.locator("#log-lines details:has(summary:text('4 lines'))")
    expect(folded).to_have_count(1)
    folded.locator("summary").click()
    site.page.mouse.move(0, 0)  # what the pointer is on would wait
    site.answers["fragment=list"] = draw("logs-more")
    site.hint("events")
    expect(folded).to_have_count(2)
    expect(folded.nth(1)).to_have_attribute("open", "")
    expect(folded.nth(0)).not_to_have_attribute("open", "")


def test_j_and_k_go_through_the_list_and_on_from_one_incident_to_the_next(site: Site) -> None:
    site.open("incidents")
    keys, focused = site.page.keyboard, site.page.locator(".inc h2 a:focus")
    for key, pk in (("j", RABBIT.pk), ("j", FULL.pk), ("k", RABBIT.pk), ("k", RABBIT.pk)):
        keys.press(key)
        expect(focused).to_have_attribute("href", f"/o/acme/incidents/{pk}/")
    for key, pk in (("j", SILENT.pk), ("k", FULL.pk)):
        site.open("incident-cause")
        keys.press(key)
        _until(lambda pk=pk: site.times(f"GET /o/acme/incidents/{pk}/?") == 1, site.page)


def test_a_takes_the_row_that_has_the_focus_and_the_focus_stays_on_it(site: Site) -> None:
    site.open("incidents")
    site.page.keyboard.press("a")  # none has it
    for _ in range(2):
        site.page.keyboard.press("j")

    def take(route: Route) -> None:
        site.answers["fragment=list"] = draw("incidents-taken")
        route.fulfill(status=204, body="")

    site.answers[f"{FULL.pk}/acknowledge"] = take
    site.page.keyboard.press("a")
    row = site.page.locator(f"#incident-{FULL.pk}")
    expect(row).to_contain_text("has it")
    expect(row.locator("h2 a")).to_be_focused()
    assert site.times("/acknowledge/") == 1


def test_a_key_does_no_more_than_the_buttons_that_somebody_is_shown(site: Site) -> None:
    for scene in ("incidents", "incident"):
        site.answers["/scene"] = draw(scene, Role.VIEWER)
        site.page.goto(f"{ORIGIN}/scene")
        expect(site.page.locator("[data-live-chip]")).to_have_text("Live")
        site.page.keyboard.press("j")
        site.page.keyboard.press("a")
        site.page.keyboard.press("?")  # is heard after what came before
        expect(site.page.locator("#keys")).to_be_visible()
        expect(site.page.locator("#keys")).not_to_contain_text("Acknowledge", use_inner_text=True)
    assert site.times("POST") == 0


def test_the_add_server_dialog_opens_waits_and_closes(site: Site) -> None:
    site.open("dashboard")
    site.answers["servers/add/?fragment=waiting"] = draw("waiting-expired")
    site.answers["servers/add/"] = draw("add-server-dialog")
    site.page.get_by_role("link", name="New server").click()
    dialog = site.page.locator("#dialog")
    expect(dialog).to_contain_text("curl -fsS")
    expect(dialog).to_contain_text("The token has expired")
    site.answers["servers/add/?fragment=waiting"] = draw("waiting-done")
    site.hint("server")
    expect(dialog.get_by_role("link", name="Open ctl-1")).to_be_visible()
    site.page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(dialog).to_be_empty()


def test_the_palette_finds_a_server_by_keyboard(site: Site) -> None:
    site.open("dashboard")
    site.page.keyboard.press("Control+k")
    box = site.page.get_by_role("combobox", name="Search or jump to")
    expect(box).to_be_focused()
    box.fill("ctl")
    expect(site.page.get_by_role("option", name="ctl-1")).to_have_attribute("aria-selected", "true")
    site.page.keyboard.press("Enter")
    _until(lambda: site.times("GET /o/acme/servers/1/") == 1, site.page)


def test_g_and_a_letter_go_there_but_not_while_typing(site: Site) -> None:
    site.open("logs")
    site.page.locator("#q").fill("g s")
    assert site.times("GET /o/acme/servers/?") == 0
    site.page.locator("#q").blur()
    site.page.keyboard.press("g")
    site.page.keyboard.press("s")
    _until(lambda: site.times("GET /o/acme/servers/?") == 1, site.page)


def test_a_search_while_typing_ends_with_the_last_words_and_is_in_the_address(site: Site) -> None:
    site.open("logs")

    def find(route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query, keep_blank_values=True)
        words = asked["q"][0]
        route.fulfill(body=f"<h2>Lines with {words}</h2>", content_type="text/html")

    site.answers["logs/?fragment=list"] = find
    box = site.page.locator("#q")
    box.fill("")
    box.press_sequentially("database is down", delay=20)
    site.page.get_by_role("group", name="Levels").get_by_text("Warning").click()
    expect(site.page.locator("#lines")).to_have_text("Lines with database is down")
    address = parse_qs(urlsplit(site.page.url).query)
    assert address["q"] == ["database is down"]
    assert "warning" in address["level"]


def test_the_chart_of_a_script_stays_while_its_newest_value_changes(site: Site) -> None:
    site.open("server-vitals")
    figure, plot = site.page.locator("#fig-c-1"), site.page.locator("#c-1")
    canvas = plot.locator("canvas")
    expect(figure).to_have_text("41 s")
    expect(canvas).to_have_count(1)
    canvas.evaluate("canvas => { canvas.dataset.mine = 'yes'; }")
    site.answers["fragment=custom"] = draw("custom").replace("41 s", "57 s")
    site.hint("points")
    expect(figure).to_have_text("57 s")
    expect(canvas).to_have_attribute("data-mine", "yes")
    plot.scroll_into_view_if_needed()
    plot.focus()
    site.page.keyboard.press("ArrowLeft")
    expect(figure).to_contain_text("23")
    plot.blur()
    expect(figure).to_have_text("57 s")
    assert not site.errors


def test_a_chart_says_its_average_and_the_value_under_the_cursor(site: Site) -> None:
    site.open("server")
    figure = site.page.locator("#fig-cpu")
    expect(figure).to_have_text("13 %, peak 24")
    plot = site.page.locator("#cpu")
    plot.scroll_into_view_if_needed()
    plot.focus()
    site.page.keyboard.press("ArrowLeft")
    expect(figure).to_contain_text("23 %")
    plot.blur()
    expect(figure).to_have_text("13 %, peak 24")
    expect(plot).to_have_attribute("aria-label", "CPU. percent: average 13 %, highest 24 %.")


def test_of_several_disks_the_fullest_is_told_and_each_is_called_by_its_own_name(
    site: Site,
) -> None:
    def disks(route: Route) -> None:
        drawn = _chart("/chart/disk", {})
        (one,) = drawn["series"]
        full = {**one, "tags": {"mount": "/srv"}, "values": [90] * 24}
        drawn["series"] = [{**one, "tags": {"mount": "/"}}, full]
        route.fulfill(json=drawn)

    site.answers["/chart/disk"] = disks
    site.open("server")
    expect(site.page.locator("#fig-disk")).to_have_text("90 %, peak 90")
    expect(site.page.locator("#disk + .chart-key > span")).to_have_text(["/", "/srv"])


def test_a_click_on_a_bar_opens_those_log_lines(site: Site) -> None:
    site.open("server")
    expect(site.page.locator("#fig-events")).to_contain_text("900")
    box = site.page.locator("#events .u-over").bounding_box()
    assert box
    site.page.mouse.click(box["x"] + box["width"] * 0.95, box["y"] + box["height"] - 4)
    _until(lambda: site.times("GET /o/acme/logs/?server=1&start=") == 1, site.page)
    assert "level=critical" in next(url for url in site.asked if "logs/?server=1&start=" in url)


def test_a_chart_can_be_read_as_a_table(site: Site) -> None:
    site.open("server")
    expect(site.page.locator("#fig-disk")).to_contain_text("13")
    site.page.locator("details[data-table-for] summary").click()
    table = site.page.locator("details[data-table-for] table")
    expect(table.locator("th")).to_have_text(["Time", "CPU", "Memory", "Disk"])
    expect(table.locator("tbody tr")).to_have_count(24)


def test_a_chosen_theme_holds_on_the_next_page(site: Site) -> None:
    site.open("dashboard")
    site.page.get_by_label("You: Alice Rojas").click()
    site.page.get_by_role("button", name="Dark").click()
    dark = site.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(11, 13, 16)"
    site.open("logs")
    assert site.page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_an_untaken_critical_incident_shows_in_the_title(site: Site) -> None:
    site.open("servers")
    expect(site.page).to_have_title("(1) Servers · Andes Cloud")


FRAGMENT = re.compile(r"/_|^components/|add_server\.html")
PAGES = [name for name, (page, _, _) in SCENES.items() if not FRAGMENT.search(page)]


@pytest.mark.parametrize("scene", PAGES)
def test_no_page_is_wider_than_the_screen(site: Site, scene: str) -> None:
    site.open(scene)
    site.page.evaluate("document.fonts.ready")
    for width in (1440, 1100, 800, 390, 320):
        site.page.set_viewport_size({"width": width, "height": 844})
        beyond = site.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0, f"{beyond} pixels at {width}"


def _until(holds: Callable[[], bool], page: Page, seconds: float = 5) -> None:
    """Wait for something that the page asks of the server."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "It did not happen."
        page.wait_for_timeout(20)
