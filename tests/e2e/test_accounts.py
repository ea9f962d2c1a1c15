"""From a stranger to a member with a server: sign-up, add-server dialog, invitation."""

from __future__ import annotations

import re
import time
import uuid

import pytest
from playwright.sync_api import expect

from agent_client.wire import ServiceState
from tests.e2e.product import PASSWORD, TICK, Machine, enrol, until

SCHEMA = 1.0  # seconds that making a tenant may take


def link_in(mail, part):
    text = mail.get_body(("plain",)).get_content()
    return re.search(rf"http://\S*/{part}/\S+", text)[0]


def sign_up(page, email, organization=None):
    if organization:
        page.get_by_label("Organization").fill(organization)
        page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()


@pytest.mark.alone
def test_a_stranger_signs_up_and_has_a_tenant_of_their_own_within_a_second(
    visit, product, mailbox, figure
):
    visitor, email = visit(), f"carol-{uuid.uuid4().hex[:6]}@umbrella.example"
    page = visitor.page
    page.goto(product.url)
    page.get_by_role("link", name="Sign up").first.click()
    name = f"Umbrella {uuid.uuid4().hex[:6]}"
    sign_up(page, email, name)
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()

    (mail,) = until(lambda: mailbox.to(email), 10, "the confirmation is mailed")
    page.goto(link_in(mail, "confirm-email"))
    confirm = page.get_by_role("button", name="Yes, go on")
    expect(page.get_by_text(email)).to_be_visible()
    began = time.monotonic()
    confirm.click()
    page.wait_for_url(re.compile("/o/umbrella-"))
    expect(page.get_by_role("heading", name="No server yet")).to_be_visible()
    took = time.monotonic() - began
    figure(f"sign-up: {took:.2f} s from “Yes, go on” to the tenant's first page")
    shown = product.instance.shown + (product.state_dir / "log" / "web.log").read_text()
    assert "tenant provisioned" in shown
    assert took <= SCHEMA + 2  # the schema, and a redirect and two pages around it

    expect(page).to_have_title(f"Dashboard · {name}")
    page.get_by_role("link", name="Rules", exact=True).first.click()
    expect(page.get_by_role("link", name="Server silent")).to_be_visible()
    page.get_by_role("link", name="Channels", exact=True).first.click()
    expect(page.get_by_role("row", name=re.compile("E-mail"))).to_be_visible()
    page.get_by_role("link", name="Settings", exact=True).first.click()
    expect(page.get_by_role("row", name=re.compile(email))).to_contain_text("Owner")


def test_a_second_organization_of_the_same_name_gets_an_address_of_its_own(visit, product):
    organization = product.bootstrap(f"twice-{uuid.uuid4().hex[:6]}")
    visitor = visit()
    visitor.sign_in(product, organization.email)
    visitor.page.goto(f"{product.url}/home/?all")
    visitor.page.get_by_label("Organization", exact=True).fill(organization.slug)
    visitor.page.get_by_role("button", name="Found it").click()
    visitor.page.wait_for_url(f"{product.url}/o/{organization.slug}-2/")
    expect(visitor.page.get_by_role("heading", name="No server yet")).to_be_visible()


def test_the_dialog_gives_a_line_and_follows_the_new_server_to_its_first_report(
    owner, product, organization
):
    page = owner.page
    owner.is_live()
    owner.mark()
    page.locator("main").get_by_role("link", name=re.compile("Add a server|New server")).click()
    line = page.locator("#install-line")
    expect(line).to_have_text(
        re.compile(rf"curl -fsSL {product.url}/install .* sha256sum -c .* echo snt_\S+ \|")
    )
    (token,) = re.findall(r"echo (snt_\S+)", line.inner_text())
    waiting = page.locator("#waiting")
    expect(waiting).to_contain_text("Waiting for the agent")

    machine = Machine(organization, f"new-{uuid.uuid4().hex[:6]}")
    machine.key = enrol(product, token, machine.agent, machine.host)
    expect(waiting).to_contain_text("Token used", timeout=8000)
    expect(waiting).to_contain_text("Waiting for the first report")

    machine.says(
        5,
        services=(ServiceState("nova-compute", "nova", "up", workers=1),),
        specs={"os": {"name": "Debian GNU/Linux", "version": "12"}, "kernel": "6.1.0"},
    )
    expect(waiting).to_contain_text("First report is here", timeout=8000)
    expect(waiting).to_contain_text("Debian GNU/Linux 12, kernel 6.1.0")
    expect(waiting).to_contain_text("nova")
    assert owner.was_not_reloaded()
    waiting.get_by_role("link", name=f"Open {machine.host}").click()
    expect(page.locator("h1")).to_have_text(machine.host)


def test_an_invited_member_sees_at_once_that_another_one_has_an_incident(
    owner, visit, product, organization, mailbox
):
    email = f"bob-{uuid.uuid4().hex[:6]}@acme.example"
    owner.page.goto(f"{organization.url}settings/members/")
    owner.page.get_by_label("E-mail").fill(email)
    owner.page.get_by_label("Role", exact=True).select_option("member")
    owner.page.get_by_role("button", name="Send invitation").click()
    (mail,) = until(lambda: mailbox.to(email), 10, "the invitation is mailed")
    bob = visit()
    bob.page.goto(link_in(mail, "invitations"))
    bob.page.get_by_role("link", name="Create your account").click()
    sign_up(bob.page, email)
    bob.page.wait_for_url(re.compile("/o/|/home/"))

    machine = Machine(organization, f"shared-{uuid.uuid4().hex[:6]}")
    machine.says(95)
    rule = f"CPU of {machine.host}"
    organization.rule(rule, server=organization.server(machine.host)["id"])
    rows = []
    for visitor in (owner, bob):
        visitor.page.goto(f"{organization.url}incidents/")
        visitor.is_live()
        visitor.mark()
        rows.append(visitor.page.locator("article.inc", has_text=rule))
    hers, his = rows
    machine.says(96)
    expect(hers).to_be_visible(timeout=1000 * (2 * TICK + 5))
    expect(his).to_contain_text("Nobody has it yet")
    hers.get_by_role("button", name="Acknowledge").click()
    expect(his).to_contain_text("has it", timeout=3000)
    expect(hers).to_contain_text("has it")
    expect(his.get_by_role("button", name="Acknowledge")).to_have_count(0)
    assert owner.was_not_reloaded()
    assert bob.was_not_reloaded()
    (incident,) = [
        one for one in organization.get("incidents/")["results"] if one["title"].startswith(rule)
    ]
    assert {event["kind"] for event in incident["events"]} == {"opened", "acknowledged"}
    machine.says(5)
    expect(his).to_have_count(0, timeout=1000 * (2 * TICK + 5))
