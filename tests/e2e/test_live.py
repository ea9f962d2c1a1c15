"""A page that loses its line says so, goes on by asking, and ends in the server's state."""

from __future__ import annotations

import uuid

import pytest
from playwright.sync_api import expect

from tests.e2e.product import PASSWORD, TICK, Machine, until
from tests.e2e.receivers import Cable

POLL = 10.0  # seconds, as the page says
RETRY = 15.0  # seconds within which a socket is tried again


class Scene:
    """A server with a rule of its own, and the row that its alert makes on the dashboard."""

    def __init__(self, organization):
        self.machine = Machine(organization, f"live-{uuid.uuid4().hex[:6]}")
        self.machine.says(5)
        self.rule = f"CPU of {self.machine.host}"
        organization.rule(self.rule, server=organization.server(self.machine.host)["id"])

    def row(self, page):
        return page.locator("#state article.inc", has_text=self.rule)


@pytest.fixture
def scene(organization):
    return Scene(organization)


def paused(page):
    chip = page.locator("[data-live-chip]")
    expect(chip).to_have_attribute("data-state", "paused")
    expect(chip).to_contain_text("Live paused, checking every 10 s")


def test_without_its_socket_a_page_polls_and_comes_back_live(owner, scene):
    page, sockets, refused = owner.page, [], []

    def route(socket):
        if refused:
            socket.close(code=1011)
        else:
            socket.connect_to_server()
            sockets.append(socket)

    page.route_web_socket("**/ws/live", route)
    owner.expects("WebSocket connection to")
    page.reload()
    owner.is_live()
    owner.mark()
    refused.append(True)
    sockets[-1].close(code=1011)
    paused(page)
    scene.machine.says(95)
    expect(scene.row(page)).to_be_visible(timeout=1000 * (2 * TICK + POLL + 3))
    paused(page)  # so it was polling that brought it
    refused.clear()
    expect(page.locator("[data-live-chip]")).to_have_text("Live", timeout=1000 * RETRY)
    scene.machine.says(5)
    expect(scene.row(page)).to_have_count(0, timeout=1000 * (2 * TICK + 3))
    assert owner.was_not_reloaded()


def test_after_a_time_without_any_network_a_page_ends_in_the_servers_state(
    visit, product, organization, scene
):
    other = Scene(organization)
    other.machine.says(95)
    with Cable(product.instance.port).connected() as cable:
        visitor = visit()
        page = visitor.page
        page.goto(f"http://127.0.0.1:{cable.port}/login/")
        page.get_by_label("E-mail").fill(organization.email)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/o/**")
        expect(other.row(page)).to_be_visible(timeout=1000 * (2 * TICK + 3))
        visitor.is_live()
        visitor.mark()
        visitor.expects_an_outage()
        cable.pull_out()
        paused(page)
        other.machine.says(5)
        scene.machine.says(95)
        until(lambda: organization.alerts(scene.rule, state="open"), 3 * TICK, "it is open")
        expect(other.row(page)).to_be_visible()  # it can't know
        cable.put_in()
        expect(scene.row(page)).to_be_visible(timeout=1000 * (RETRY + POLL))
        expect(other.row(page)).to_have_count(0)
        expect(page.locator("[data-live-chip]")).to_have_text("Live", timeout=1000 * RETRY)
        scene.machine.says(5)
        expect(scene.row(page)).to_have_count(0, timeout=1000 * (2 * TICK + 3))
        assert visitor.was_not_reloaded()


def test_after_a_kill_of_valkey_an_open_page_is_told_of_changes_again(owner, product, scene):
    owner.is_live()
    owner.mark()
    owner.expects_an_outage()
    product.kill("valkey")
    expect(owner.page.locator("[data-live-chip]")).to_have_text("Live", timeout=1000 * RETRY)
    scene.machine.says(95)
    expect(scene.row(owner.page)).to_be_visible(timeout=1000 * (2 * TICK + 3 + POLL))
    scene.machine.says(5)
    expect(scene.row(owner.page)).to_have_count(0, timeout=1000 * (2 * TICK + 3))
    assert owner.was_not_reloaded()
