"""From a number that is too high to one row, one mail and one Slack message, and back."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from playwright.sync_api import expect

from tests.e2e.product import REACT, TICK, Machine, until

HOLD = 20.0  # seconds, as in "for 20 s"
DELIVERY = 10.0  # seconds within which a mail or a message is out


def row(page, title):
    return page.locator("#state article.inc", has_text=title)


def told(mailbox, slack, organization, host):
    """What mails and Slack messages about this server say, in order."""
    mails = mailbox.told(organization.email, f"on {host}")
    return mails, [hook.text for hook in slack.got(organization.slug, f"on {host}")]


def seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


@pytest.mark.alone
def test_a_value_above_its_limit_for_20_s_is_one_alert_told_once_and_over_by_itself(
    owner, organization, mailbox, slack, figure
):
    machine = Machine(organization, "burner-1")
    machine.says(5)
    owner.page.reload()  # the first server of an organization turns its first-run page into this
    owner.is_live()
    owner.mark()
    organization.rule("CPU burns", hold=HOLD)
    with machine.reporting(every=1.0):
        began = machine.says(95)
        expect(row(owner.page, "CPU burns")).to_have_count(1, timeout=1000 * (HOLD + TICK + 5))
        shown = time.time()
        (alert,) = organization.alerts("CPU burns")
        latency = shown - (began + HOLD)
        opened_at = seconds(alert["opened_at"])
        figure(f"synthetic: in the browser {latency:.2f} s after the rule held")
        figure(f"synthetic: in the browser {shown - opened_at:.2f} s after the evaluation's slot")
        assert 0 <= latency <= TICK + REACT
        expect(row(owner.page, "CPU burns")).to_contain_text("burner-1")
        expect(owner.page.locator("#count-nav")).to_have_text("1 that nobody has")

        both = (["Error: CPU burns on burner-1"], ["Error: CPU burns on burner-1"])
        until(
            lambda: told(mailbox, slack, organization, "burner-1") == both,
            DELIVERY,
            "one mail and one Slack message",
        )
        # further breaches count on the open alert and tell nobody
        count = alert["count"]
        until(
            lambda: organization.alerts("CPU burns")[0]["count"] > count, 3 * TICK, "counted again"
        )
        expect(row(owner.page, "CPU burns")).to_have_count(1)
        assert told(mailbox, slack, organization, "burner-1") == both

        machine.says(5)
        expect(row(owner.page, "CPU burns")).to_have_count(0, timeout=1000 * (TICK + 5))
        over = (
            [*both[0], "Resolved: CPU burns on burner-1"],
            [*both[1], "Resolved: CPU burns on burner-1"],
        )
        until(
            lambda: told(mailbox, slack, organization, "burner-1") == over,
            DELIVERY,
            "one mail and one Slack message that it is over",
        )
    (alert,) = organization.alerts("CPU burns")
    assert alert["resolved_at"]
    assert not alert["resolved_by_hand"]
    assert (alert["service"], alert["subject"]) == ("system", "cpu percent")
    assert owner.was_not_reloaded()
    assert told(mailbox, slack, organization, "burner-1") == over


def test_a_value_above_its_limit_for_less_than_20_s_is_no_alert(organization):
    machine = Machine(organization, "spike-1")
    machine.says(5)
    organization.rule("CPU spikes", hold=HOLD, server=organization.server("spike-1")["id"])
    with machine.reporting(every=1.0):
        began = machine.says(95)
        until(lambda: time.time() > began + HOLD / 2, HOLD, "half of the time has passed")
        calm = machine.says(5)
        # were it forgotten that the value fell, the alert would have opened by now
        until(
            lambda: time.time() > max(calm + TICK, began + HOLD + TICK) + REACT,
            2 * HOLD,
            "the time of an alert has passed",
        )
    assert organization.alerts("CPU spikes") == []
