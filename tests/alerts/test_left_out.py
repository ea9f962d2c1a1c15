"""A rule that cannot be judged stops no other, and people hear of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError

from accounts.access import Access
from accounts.models import Role
from alerts.engines import aeolus, breaches, chronos, evaluation
from alerts.models import Alert, Judgement, Pending, Remembered, Rule
from alerts.rulebook import rules as rulebook
from alerts.values import sentences
from clouds.models import CloudGroup
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


def test_a_database_that_fails_is_no_fault_of_a_rule(acme, monkeypatch):
    make_rule()

    def away(*given):
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(chronos, "measured", away)
    send(acme, NOW, cpu(95))
    with pytest.raises(OperationalError):
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
