"""A worker that dies between sending and noting it: once more, under the same key."""

from __future__ import annotations

from tests.e2e.product import TICK, Machine, until

HEALED = 30.0  # seconds in which everything goes on after a kill


def test_a_worker_that_dies_while_slack_answers_sends_once_more_with_the_same_key(
    product, organization, slack
):
    machine = Machine(organization, "host-mid-send")
    machine.says(5)
    rule = "CPU while a message is sent"
    server = organization.server("host-mid-send")["id"]
    organization.rule(rule, server=server)
    heading = f"{rule} on host-mid-send"
    slack.answering.clear()
    try:
        with machine.reporting(every=1.0):
            machine.says(95)
            until(lambda: slack.got(organization.slug, heading), 3 * TICK, "Slack is being told")
            product.kill("notifier")
            slack.answering.set()
            until(
                lambda: len(slack.got(organization.slug, heading)) == 2,
                60 + 3 * TICK + HEALED,  # a dead worker's claim ends after 60 s
                "Slack is told again",
            )
            machine.says(5)
            until(
                lambda: len(slack.got(organization.slug, heading)) >= 3,
                HEALED,
                "and that it is over",
            )
    finally:
        slack.answering.set()
    first, again, over = slack.got(organization.slug, heading)
    assert first.key == again.key != over.key
    assert first.text == again.text
    assert len(organization.alerts(rule)) == 1
