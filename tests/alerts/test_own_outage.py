"""While nobody listens to the agents nothing is known: no alert ends or opens for that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.engines import evaluation, fleet
from alerts.lifecycle import external, incidents
from alerts.lifecycle.external import Statement
from alerts.models import Alert, Incident, Pending, Rule, Severity
from clouds.models import Server
from metrics import outages
from metrics.models import Outage
from sentinel_site.kit.listening import Run
from tests.alerts.builders import MINUTE, SECOND, make_rule
from tests.alerts.test_evaluation import NOW, cpu, log, point
from tests.alerts.test_evaluation import send as report

BACK = NOW + 30 * MINUTE


def send(*given, **more):
    """A report of a server that is silent only after hours."""
    report(*given, **more)
    Server.objects.update(interval=60 * MINUTE)


@pytest.fixture
def listen(monkeypatch):
    """Say that somebody has listened from a time to another one."""

    def listen(since, until):
        run = Run(since, until)
        monkeypatch.setattr(fleet.listening, "last", lambda: run)

    return listen


@pytest.fixture
def judge(listen):
    """Evaluate this long after NOW; till NOW and from BACK on somebody listened."""

    def judge(after):
        at = NOW + after
        listen(NOW - 60 * MINUTE, NOW + SECOND) if at < BACK else listen(BACK, at)
        evaluation.evaluate(at)

    return judge


@pytest.fixture
def rules(acme):
    """No rule but the test's own; of the server's silence nothing is made."""
    Rule.objects.all().delete()
    send(acme, NOW, point("agent", {"up": 1}))


def is_open() -> bool:
    return Alert.objects.get().resolved_at is None


def test_a_series_that_nobody_could_hear_is_not_taken_for_removed(acme, rules, judge):
    make_rule()
    send(acme, NOW + SECOND, cpu(95))
    judge(2 * SECOND)
    for minutes in (5, 16, 29, 30, 44):
        judge(minutes * MINUTE)
        assert is_open(), minutes
    judge(46 * MINUTE)
    assert not is_open(), "we have listened for longer than it is given"


def test_a_series_that_nobody_could_hear_goes_on_waiting(acme, rules, judge):
    make_rule(hold=40 * MINUTE)
    send(acme, NOW + SECOND, cpu(95))
    judge(2 * SECOND)
    for minutes in (5, 21, 29, 30, 41):
        judge(minutes * MINUTE)
        assert Pending.objects.count() == 1, minutes
    send(acme, NOW + 42 * MINUTE, cpu(95))
    judge(42 * MINUTE)
    assert is_open(), "it has held since before the outage"
    Alert.objects.all().delete()
    for minutes in (43, 50, 60):
        judge(minutes * MINUTE)
    assert not Pending.objects.exists()


def test_a_wait_outlives_one_missing_number(acme, rules, judge):
    """By its own clock: from when it is missing, not from when it began."""
    make_rule(hold=20 * MINUTE, window=20 * SECOND)
    for minutes in range(18):
        send(acme, NOW + minutes * MINUTE + SECOND, cpu(95))
        evaluation.evaluate(NOW + minutes * MINUTE + SECOND)
    evaluation.evaluate(NOW + 18 * MINUTE)
    assert Pending.objects.get().missing_since == NOW + 18 * MINUTE
    send(acme, NOW + 19 * MINUTE, cpu(95))
    evaluation.evaluate(NOW + 19 * MINUTE)
    assert Pending.objects.get().missing_since is None
    send(acme, NOW + 20 * MINUTE + SECOND, cpu(95))
    evaluation.evaluate(NOW + 20 * MINUTE + SECOND)
    assert is_open()


@pytest.mark.parametrize("status", ["silent", "maintenance", "blackout"])
def test_a_wait_outlives_a_silence_and_what_is_muted(acme, rules, status):
    make_rule(hold=60 * MINUTE)
    send(acme, NOW + SECOND, cpu(95))
    evaluation.evaluate(NOW + 2 * SECOND)
    for minutes in (1, 17, 40):
        if status == "silent":
            Server.objects.update(interval=10 * SECOND)
        else:
            Server.objects.update(status=status)
        evaluation.evaluate(NOW + minutes * MINUTE)
    assert Pending.objects.count() == 1


def test_no_data_is_counted_from_when_we_listen_again(acme, rules, judge):
    make_rule(no_data="alert")
    send(acme, NOW + SECOND, cpu(5))
    for minutes in (0, 5, 29, 30, 32):
        judge(minutes * MINUTE + 2 * SECOND)
        assert not Alert.objects.exists(), minutes
    judge(34 * MINUTE)
    assert Incident.objects.get().title == "No data: Busy"


def test_an_alert_of_no_data_stays_while_nobody_listens(acme, rules, judge, listen):
    make_rule(no_data="alert")
    send(acme, NOW - 10 * MINUTE, cpu(5))
    judge(SECOND)
    assert is_open()
    for minutes in (10, 20, 29, 30, 31, 32, 34):
        judge(minutes * MINUTE)
        assert is_open(), minutes
    send(acme, NOW + 35 * MINUTE, cpu(5))
    judge(35 * MINUTE + SECOND)
    assert not is_open()


def test_lines_that_nobody_could_hear_are_not_absent(acme, rules, judge):
    Rule.objects.create(
        name="Alive", kind="event", aggregation="absent", words="alive",
        thresholds={"warning": 600, "critical": 3600}, window=MINUTE, changed_at=NOW,
    )  # fmt: skip
    send(acme, NOW + SECOND, events=[log(NOW, "error", "I am alive", "a")])
    for minutes in (0, 11, 29, 30, 39):
        judge(minutes * MINUTE + 2 * SECOND)
        assert not Alert.objects.exists(), minutes
    judge(41 * MINUTE)
    assert Alert.objects.get().severity == "warning"


def test_errors_that_nobody_could_hear_are_not_over(acme, rules, judge):
    Rule.objects.create(
        name="Errors", kind="event", level="error", aggregation="count", comparison=">=",
        thresholds={"error": 1}, window=MINUTE,
    )  # fmt: skip
    send(acme, NOW + SECOND, events=[log(NOW, "error", "Lost it", "a")])
    judge(2 * SECOND)
    for minutes in (1, 2, 29, 30, 32):
        judge(minutes * MINUTE + 30 * SECOND)
        assert is_open(), minutes
    judge(34 * MINUTE)
    assert not is_open()


def heard_from_elsewhere(lasts):
    return Statement(
        origin="alertmanager", names={"alertname": "Down"}, severity=Severity.ERROR,
        resource="switch-7", service="network", subject="port 1", title="Port down",
        text="Port 1 is down.", expires_at=NOW + lasts,
    )  # fmt: skip


def test_what_its_tool_could_not_repeat_is_not_over(acme, rules, judge):
    external.accept([heard_from_elsewhere(4 * MINUTE)], NOW)
    for minutes in (5, 29, 30, 33):
        judge(minutes * MINUTE)
        assert is_open(), minutes
    assert external.next_expiry(BACK + MINUTE, BACK) == BACK + 4 * MINUTE
    judge(34 * MINUTE)
    assert not is_open()


def test_what_lasts_long_does_not_begin_anew_with_each_outage(acme, rules):
    """A day of Alerta, with an outage every day: it has lost no more than the outages took."""
    external.accept([heard_from_elsewhere(24 * 60 * MINUTE)], NOW)
    outages.note(NOW - 10 * MINUTE, NOW + 20 * MINUTE)  # before it was sent is no part of it
    outages.note(NOW + 60 * MINUTE, NOW + 90 * MINUTE)
    day = NOW + 24 * 60 * MINUTE
    back = day - 35 * MINUTE
    outages.note(back - 5 * MINUTE, back)
    ends = day + (20 + 30 + 5) * MINUTE
    assert external.next_expiry(day, back) == ends
    for minutes in (0, 54):
        external.expire(day + minutes * MINUTE, back)
        assert is_open(), minutes
    assert external.next_expiry(day, None) == ends
    external.expire(ends, back)
    assert not is_open()
    assert external.next_expiry(ends, None) is None


def test_any_number_of_outages_costs_no_more_than_their_time(acme, rules):
    external.accept([heard_from_elsewhere(24 * 60 * MINUTE)], NOW)
    Outage.objects.bulk_create(
        Outage(since=NOW + 80 * number * SECOND, until=NOW + (80 * number + 30) * SECOND)
        for number in range(1000)
    )
    day = NOW + 24 * 60 * MINUTE
    ends = day + 1000 * 30 * SECOND
    assert external.next_expiry(day, None) == ends
    evaluation.evaluate(ends - SECOND)
    assert is_open()
    evaluation.evaluate(ends)
    assert not is_open()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20))), st.integers(0, 90))
def test_a_minute_in_which_nobody_listened_is_lost_once(spans, start):
    lost = {minute for since, lasts in spans for minute in range(since, since + lasts)}
    given = [
        (NOW + since * MINUTE, NOW + (since + lasts) * MINUTE) for since, lasts in sorted(spans)
    ]
    expected = len([minute for minute in lost if minute >= start]) * MINUTE
    assert outages.Lost(given).since(NOW + start * MINUTE) == expected


def test_an_outage_at_the_very_end_leaves_time_to_repeat_it(acme, rules):
    external.accept([heard_from_elsewhere(24 * 60 * MINUTE)], NOW)
    back = NOW + 24 * 60 * MINUTE + MINUTE
    outages.note(back - 2 * MINUTE, back)
    assert external.next_expiry(back, back) == back + external.ANEW


def test_what_comes_and_goes_is_not_calm_because_nobody_listens(acme, rules, judge):
    external.accept([heard_from_elsewhere(4 * MINUTE)], NOW)
    Alert.objects.update(resolved_at=NOW + SECOND)
    Incident.objects.update(flapping_until=NOW + 10 * MINUTE)
    for minutes in (11, 29, 30, 39):
        judge(minutes * MINUTE)
        assert Incident.objects.get().resolved_at is None, minutes
    assert incidents.next_change(BACK + MINUTE, BACK) == BACK + incidents.HEARD
    judge(40 * MINUTE)
    assert Incident.objects.get().resolved_at is not None
