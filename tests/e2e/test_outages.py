"""`kill -9` of any part while something is going on: nothing lost, nothing twice."""

from __future__ import annotations

import time

import pytest

from tests.e2e.product import TICK, Machine, until

HOLD = 5.0  # seconds
HEALED = 30.0  # seconds in which everything goes on after a kill


@pytest.mark.parametrize("part", ["worker", "notifier", "beat", "web", "valkey"])
def test_a_kill_between_breach_and_alert_loses_nothing_and_doubles_nothing(
    product, organization, mailbox, slack, figure, part
):
    host, rule = f"host-{part}", f"CPU while {part} dies"
    machine = Machine(organization, host)
    first = machine.says(5)
    server = organization.server(host)["id"]
    organization.rule(rule, hold=HOLD, server=server)
    heading = f"{rule} on {host}"
    with machine.reporting(every=0.5):
        began = machine.says(95)
        until(lambda: time.time() > began + TICK, 2 * TICK, "an evaluation has seen the breach")
        product.kill(part)
        until(lambda: organization_alerts(organization, rule), HEALED, "the alert is open")
        figure(f"kill -9 of {part}: alert {time.time() - began - HOLD:.1f} s after the rule held")
        machine.percent = 5
        until(
            lambda: all(alert["resolved_at"] for alert in organization.alerts(rule)),
            HEALED,
            "the alert is over",
        )
        until(
            lambda: (
                len(mailbox.to(organization.email, heading)) >= 2
                and len(slack.got(organization.slug, heading)) >= 2
            ),
            HEALED,
            "a mail and a message of both",
        )
    assert len(organization.alerts(rule)) == 1
    (incident,) = [
        one
        for one in organization.get("incidents/", server=server)["results"]
        if one["title"].startswith(rule)
    ]
    assert [event["kind"] for event in incident["events"]] == ["opened", "resolved"]
    stored = organization.stored(server, first - 10, time.time() + 10)
    assert stored == len(machine.acknowledged) == machine.made
    subjects = [str(mail["Subject"]) for mail in mailbox.to(organization.email, heading)]
    ids = {str(mail["Message-ID"]) for mail in mailbox.to(organization.email, heading)}
    keys = [hook.key for hook in slack.got(organization.slug, heading)]
    assert len(ids) == 2, subjects  # a repeated one has the Message-ID of its first try
    assert len(set(keys)) == 2
    assert len(subjects) <= 3
    assert len(keys) <= 3


def organization_alerts(organization, rule):
    """The rule's alerts; none while web is down."""
    try:
        return organization.alerts(rule)
    except Exception as error:
        if type(error).__module__.startswith("urllib3"):
            return []
        raise
