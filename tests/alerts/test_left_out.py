"""A rule that cannot be judged stops no other, and people hear of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import OperationalError
from structlog.testing import capture_logs

from accounts.access import Access
from accounts.models import Role
from alerts.engines import aeolus, breaches, chronos, evaluation
from alerts.models import Alert, Judgement, Pending, Remembered, Rule
from alerts.rulebook import rules as rulebook
from alerts.values import sentences
from clouds.models import CloudGroup, Server
from tests.alerts.builders import MINUTE, SECOND, make_rule
from tests.alerts.test_evaluation import (  # noqa: F401
    NOW,
    _nobody_has_listened,
    cpu,
    log,
    point,
    rules,
    send,
)

pytestmark = pytest.mark.usefixtures("rules")


def open_titles():
    return set(Alert.objects.filter(resolved_at=None).values_list("title", flat=True))


def wordless(name):
    """A function of `sentences` that fails where it is to tell of memory."""
    real = getattr(sentences, name)

    def tell(measured, *given):
        if measured.measurement == "memory":
            raise OverflowError("date value out of range")
        return real(measured, *given)

    return tell


@pytest.fixture
def fails(monkeypatch):
    """Make something fail for the rule of memory, and mend it."""

    def fails(what):
        if what == "its numbers":
            real = chronos.measured

            def measured(rule, *given):
                if rule.measurement == "memory":
                    raise ZeroDivisionError
                return real(rule, *given)

            monkeypatch.setattr(chronos, "measured", measured)
        elif what == "its series":
            real_name = breaches.fingerprint

            def fingerprint(rule, *given):
                if rule.measurement == "memory":
                    raise ValueError("no name")
                return real_name(rule, *given)

            monkeypatch.setattr(breaches, "fingerprint", fingerprint)
        else:
            monkeypatch.setattr(sentences, "holds", wordless("holds"))
            monkeypatch.setattr(sentences, "over", wordless("over"))

    fails.mended = monkeypatch.undo
    return fails


def both(at, level, tenant):
    send(tenant, at, cpu(level), point("memory", {"percent": level}))
    evaluation.evaluate(at + SECOND)


@pytest.mark.parametrize("what", ["its numbers", "its series", "its words"])
def test_others_are_judged_and_what_is_wrong_is_told_until_it_is_mended(acme, fails, what):
    make_rule(name="Memory", measurement="memory", kind="metric")
    make_rule()
    fails(what)
    for minutes in (0, 1):
        both(NOW + minutes * MINUTE, 95, acme)
        assert open_titles() == {"Busy", "Rule cannot be judged"}
    alert = Alert.objects.get(title="Rule cannot be judged")
    assert (alert.host, alert.origin, alert.severity) == ("rule Memory", "sentinella", "error")
    assert "The rule “Memory” cannot be judged" in alert.incident.event_set.first().text
    fails.mended()
    both(NOW + 2 * MINUTE, 95, acme)
    assert open_titles() == {"Busy", "Memory"}
    judged = Judgement.objects.filter(fingerprint=Alert.objects.get(title="Memory").fingerprint)
    assert judged.earliest("at").at >= NOW + 2 * MINUTE, "it was not judged before"


@pytest.mark.parametrize("what", ["its numbers", "its series", "its words"])
def test_alerts_of_a_rule_that_cannot_be_judged_stay_as_they_are(acme, fails, what):
    make_rule(name="Memory", measurement="memory")
    make_rule()
    both(NOW, 95, acme)
    fails(what)
    for minutes in (1, 5, 20):
        both(NOW + minutes * MINUTE, 10, acme)
        assert open_titles() == {"Memory", "Rule cannot be judged"}, minutes
    fails.mended()
    both(NOW + 21 * MINUTE, 10, acme)
    assert open_titles() == set()
    assert not Pending.objects.exists()


def wordless_on(host, name):
    """A function of `sentences` that fails where it is to tell of this host."""
    real = getattr(sentences, name)

    def tell(measured, seen, *given):
        if seen.host == host:
            raise OverflowError("date value out of range")
        return real(measured, seen, *given)

    return tell


HOSTS = ("nova-1", "nova-2", "nova-3")


@pytest.fixture
def each(acme):
    """Send one number of each of three hosts, and judge them."""
    agents = [uuid4() for _ in HOSTS]

    def each(at, *levels):
        for agent, host, level in zip(agents, HOSTS, levels, strict=True):
            send(acme, at, cpu(level), agent=agent, host=host)
        evaluation.evaluate(at + SECOND)

    return each


def how_it_is():
    return (
        sorted(Alert.objects.exclude(origin="sentinella").values_list("pk", "count", "severity")),
        sorted(Pending.objects.values_list("pk", "since", "recovering")),
        Judgement.objects.count(),
    )


def test_a_rule_without_words_for_one_host_changes_nothing_on_any(each, monkeypatch):
    """What opens, what waits, what is counted, what got worse and what is over: none of it."""
    rule = make_rule(thresholds={"warning": 60, "critical": 90})
    each(NOW, 70, 70, 10)
    before = how_it_is()
    assert len(before[0]) == 2
    for name in ("holds", "over"):
        monkeypatch.setattr(sentences, name, wordless_on("nova-3", name))
    each(NOW + MINUTE, 70, 10, 95)
    assert how_it_is() == before
    Rule.objects.filter(pk=rule.pk).update(recovery_hold=MINUTE)
    each(NOW + 2 * MINUTE, 95, 10, 95)
    assert how_it_is() == before
    monkeypatch.undo()
    each(NOW + 3 * MINUTE, 95, 10, 95)
    assert how_it_is() != before


def test_of_a_rule_that_fails_the_log_has_one_line_an_evaluation(each, monkeypatch):
    make_rule(no_data="alert")
    for host in HOSTS:
        monkeypatch.setattr(sentences, "holds", wordless_on(host, "holds"))
    with capture_logs() as lines:
        each(NOW, 95, 95, 95)
    assert [one["rule"] for one in lines if one["event"] == "a rule cannot be judged"] == ["Busy"]


@pytest.mark.parametrize("what", ["_missing", "measured"])
def test_of_two_things_that_a_rule_looks_at_none_is_judged_without_the_other(
    acme, each, monkeypatch, what
):
    make_rule(no_data="alert", window=MINUTE)

    def broken(*given):
        raise LookupError

    each(NOW, 10, 10, 10)
    Server.objects.update(interval=60 * MINUTE)
    monkeypatch.setattr(chronos, what, broken)
    send(acme, NOW + 10 * MINUTE, cpu(95), agent=uuid4(), host="nova-4")
    evaluation.evaluate(NOW + 10 * MINUTE + SECOND)
    assert open_titles() == {"Rule cannot be judged"}
    monkeypatch.undo()
    evaluation.evaluate(NOW + 10 * MINUTE + 40 * SECOND)
    of_both = Alert.objects.filter(resolved_at=None).values_list("server__host", flat=True)
    assert set(of_both) == {*HOSTS, "nova-4"}


@pytest.mark.parametrize("end", ["deleted", "switched off", "its group deleted"])
def test_of_a_rule_that_is_gone_nobody_hears_any_longer(acme, alice, fails, end):
    group = CloudGroup.objects.create(name="gru")
    rule = make_rule(name="Memory", measurement="memory")
    fails("its numbers")
    both(NOW, 95, acme)
    assert open_titles() == {"Rule cannot be judged"}
    if end == "deleted":
        rulebook.delete_rule(Access(acme, Role.OWNER, alice), rule, NOW + MINUTE)
    elif end == "switched off":
        Rule.objects.update(enabled=False)
    else:
        Rule.objects.update(group=group)
        group.delete()
    both(NOW + MINUTE, 95, acme)
    assert open_titles() == set()


def test_between_two_looks_of_a_rule_it_stays_told(acme, fails):
    day = timedelta(days=1)
    make_rule(name="Memory", measurement="memory", window=day, changed_at=NOW - day)
    make_rule()
    fails("its numbers")
    both(NOW, 10, acme)
    told = open_titles()
    assert told == {"Rule cannot be judged"}
    for seconds in range(1, 8):
        both(NOW + seconds * SECOND, 10, acme)
        assert open_titles() == told


def test_what_an_event_rule_did_not_judge_is_new_to_it_still(acme, monkeypatch):
    rule = Rule.objects.create(
        name="New", kind="event", aggregation="new", level="error", comparison=">=",
        thresholds={"error": 1}, window=5 * MINUTE,
    )  # fmt: skip
    evaluation.evaluate(NOW - MINUTE)

    def broken(*given):
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr(aeolus, "new_patterns", broken)
        send(acme, NOW, events=[log(NOW, "error", "It is lost", "a")])
        evaluation.evaluate(NOW + SECOND)
        assert open_titles() == {"Rule cannot be judged"}
        assert not Remembered.objects.filter(rule=rule).exists()
    evaluation.evaluate(NOW + MINUTE)
    assert open_titles() == {"New"}


def test_a_new_pattern_that_could_not_be_told_is_new_still(acme, monkeypatch):
    Rule.objects.create(
        name="New", kind="event", aggregation="new", level="error", comparison=">=",
        thresholds={"error": 1}, window=5 * MINUTE,
    )  # fmt: skip
    evaluation.evaluate(NOW - MINUTE)

    def wordless(*given):
        raise OverflowError

    with monkeypatch.context() as patched:
        patched.setattr(breaches, "_explain", wordless)
        send(acme, NOW, events=[log(NOW, "error", "It is lost", "a")])
        evaluation.evaluate(NOW + SECOND)
        assert open_titles() == {"Rule cannot be judged"}
    send(acme, NOW + 10 * MINUTE, events=[log(NOW + 10 * MINUTE, "error", "It is lost", "b")])
    evaluation.evaluate(NOW + 10 * MINUTE + SECOND)
    assert open_titles() == {"New"}


@pytest.mark.parametrize(
    "error", [OperationalError("server closed the connection"), MemoryError()], ids=repr
)
def test_a_machine_that_fails_is_no_fault_of_a_rule(acme, monkeypatch, error):
    make_rule()

    def away(*given):
        raise error

    monkeypatch.setattr(chronos, "measured", away)
    send(acme, NOW, cpu(95))
    with pytest.raises(type(error)):
        evaluation.evaluate(NOW + SECOND)
    assert not Alert.objects.exists()


def test_what_cannot_be_judged_of_an_outage_is_left_out_of_catching_up(acme, fails):
    make_rule(name="Memory", measurement="memory", hold=2 * MINUTE)
    make_rule(hold=2 * MINUTE)
    both(NOW, 10, acme)
    for minutes in range(1, 10):
        send(acme, NOW + minutes * MINUTE, cpu(95), point("memory", {"percent": 95}))
    fails("its series")
    evaluation.evaluate(NOW + 9 * MINUTE + SECOND)
    assert open_titles() == {"Busy", "Rule cannot be judged"}
