"""Each kind of rule over stored data: forecasts, services, log events, missing data, reach."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.engines import evaluation, forecasts
from alerts.models import Alert, Judgement, Rule
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

HOUR = timedelta(hours=1)
DISK = {
    "kind": "forecast", "measurement": "disk", "field": "percent", "target": 100.0, "guard": 50.0,
    "window": 24 * HOUR, "history": 6 * HOUR, "comparison": ">=", "aggregation": "last",
    "thresholds": {"warning": 24 * 3600, "critical": 4 * 3600},
}  # fmt: skip


def left(samples: list[float], **more) -> float:
    padded = [np.nan] * (forecasts.SAMPLES - len(samples)) + samples
    rule = Rule(name="Full soon", **{**DISK, **more})
    rule.clean()
    return float(forecasts.seconds_left(rule, np.array([padded]))[0])


def test_a_disk_that_fills_steadily_is_full_when_a_ruler_says_so():
    assert left([50 + n for n in range(24)]) == pytest.approx(27 * 3600)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0, 100), min_size=24, max_size=24))
def test_the_time_left_is_never_negative_whatever_was_measured(samples):
    found = left(samples)
    assert 0 <= found <= forecasts.FAR
    assert (found == 0) == (samples[-1] >= 100)


def test_what_rises_by_almost_nothing_is_far_and_no_error():
    with np.errstate(all="raise"):
        assert left([n * 1e-300 for n in range(24)], target=1e100, guard=None) == forecasts.FAR


def test_a_full_disk_has_no_time_left_however_long_it_has_been_full():
    assert left([100.0] * 24) == 0
    assert left([100.5, 100.5, 100.5]) == 0, "and without a history"


@pytest.mark.parametrize(
    "samples",
    [
        [70.0] * 24,
        [90 - n for n in range(24)],
        [60.0] * 12 + [80.0] * 12,
        [60 + n % 4 for n in range(24)],
        [70.0] * 20 + [70.0, 95.0, 70.0, 70.0],
    ],
    ids=["flat", "falling", "one step", "a saw", "one wrong value"],
)
def test_what_does_not_run_towards_it_never_reaches_it(samples):
    assert left(samples) == forecasts.FAR


def test_wrong_values_do_not_turn_a_forecast():
    samples = [50.0 + n for n in range(24)]
    samples[5], samples[11] = 5.0, 99.0
    assert left(samples) == pytest.approx(27 * 3600, rel=0.1)


def test_what_began_to_fill_only_lately_is_seen_before_the_day_is_over():
    assert left([60.0] * 18 + [62, 66, 70, 74, 78, 82]) == pytest.approx(4.5 * 3600, rel=0.1)


def test_below_its_guard_and_without_enough_history_nothing_is_foretold():
    assert left([10.0 + n for n in range(24)]) == forecasts.FAR
    assert left([80.0, 85.0, 90.0]) == forecasts.FAR
    assert np.isnan(left([80.0, 85.0, np.nan]))


def test_what_falls_towards_nothing_is_foretold_too():
    found = left([float(47 - n) for n in range(24)], target=0.0, guard=30.0, comparison="<=")
    assert found == pytest.approx(24 * 3600)


def test_a_disk_that_will_be_full_is_an_alert_until_it_is_not(acme, rules):  # noqa: F811
    rule = Rule(name="Disk full soon", **DISK)
    rule.full_clean()
    rule.save()
    for hour in range(24):
        at = NOW - (23 - hour) * HOUR
        send(acme, at, point("disk", {"percent": 60.0 + hour}, mount="/var"))
        send(acme, at + SECOND, point("disk", {"percent": 60.0}, mount="/"))
    evaluation.evaluate(NOW + 2 * SECOND)
    alert = Alert.objects.get()
    assert (alert.subject, alert.severity, alert.unit) == ("/var", "warning", "seconds")
    said = alert.incident.event_set.get().text
    assert said.startswith("/var on nova-1 reaches 100.0 % in 17 h at the rate of the last 1 d")
    later = NOW + 20 * MINUTE
    send(acme, later, point("disk", {"percent": 20.0}, mount="/var"))
    evaluation.evaluate(later)
    alert.refresh_from_db()
    assert alert.resolved_at == later


def service(at, up: int, restarts: int = 0):
    return point(
        "service",
        {"up": up, "down": 1 - up, "restarts": restarts},
        service="nova-api",
        project="nova",
    )


def make_service_rule(aggregation: str, **more) -> Rule:
    rule = Rule(name=aggregation, kind="service", aggregation=aggregation, **more)
    rule.full_clean()
    rule.save()
    return rule


def test_a_service_that_goes_down_and_up_is_flapping(acme, rules):  # noqa: F811
    make_service_rule("flapping", window=10 * MINUTE, thresholds={"warning": 3}, comparison=">")
    for number in range(6):
        at = NOW + number * MINUTE
        send(acme, at, service(at, number % 2))
        evaluation.evaluate(at)
        assert Alert.objects.exists() == (number >= 4)
    alert = Alert.objects.get()
    assert alert.incident.title == "nova-api goes down and up"
    assert "went down or up 4 times within 10 min (nova)" in alert.incident.event_set.first().text


def test_a_service_that_restarts_again_and_again_is_told_once(acme, rules):  # noqa: F811
    make_service_rule(
        "restarts", window=10 * MINUTE, thresholds={"error": 3}, comparison=">=", service="nova-api"
    )
    for number in range(5):
        at = NOW + number * MINUTE
        send(acme, at, service(at, 1, restarts=number))
        evaluation.evaluate(at)
    alert = Alert.objects.get()
    assert (alert.service, alert.count) == ("nova-api", 2)


def test_a_service_that_is_down_after_it_was_up(acme, rules):  # noqa: F811
    make_service_rule("down", window=5 * MINUTE, thresholds={"error": 1}, comparison=">=")
    send(acme, NOW, service(NOW, 0))
    evaluation.evaluate(NOW)
    assert Alert.objects.get().incident.title == "nova-api is down"


def make_event_rule(aggregation: str, **more) -> Rule:
    more.setdefault("thresholds", {"warning": 1})
    more.setdefault("comparison", ">=")
    rule = Rule(name=aggregation, kind="event", aggregation=aggregation, **more)
    rule.full_clean()
    rule.save()
    return rule


def logged(at, message: str):
    return log(at, "error", message, f"{message}{at}")


def test_a_pattern_that_nobody_logged_before_is_an_alert_once(acme, rules):  # noqa: F811
    send(acme, NOW - HOUR, events=[logged(NOW - HOUR, "Volume 7 is busy")])
    make_event_rule("new", window=5 * MINUTE)
    evaluation.evaluate(NOW)
    send(acme, NOW + MINUTE, events=[logged(NOW + MINUTE, "Volume 8 is busy")])
    evaluation.evaluate(NOW + MINUTE)
    assert not Alert.objects.exists(), "it was learned"
    at = NOW + 2 * MINUTE
    send(acme, at, events=[logged(at, "Kernel panic on 5")])
    evaluation.evaluate(at)
    alert = Alert.objects.get()
    assert "1 new log pattern on nova-1: Kernel panic on 5" in alert.incident.event_set.get().text
    evaluation.evaluate(at + 6 * MINUTE)
    again = at + 7 * MINUTE
    send(acme, again, events=[logged(again, "Kernel panic on 6")])
    evaluation.evaluate(again)
    alert.refresh_from_db()
    assert alert.resolved_at == at + 6 * MINUTE
    assert Alert.objects.count() == 1, "it is known by now"


def test_a_line_that_no_longer_comes_is_an_alert_until_it_comes_again(acme, rules):  # noqa: F811
    first = NOW - 2 * HOUR
    send(acme, first, events=[logged(first, "Backup finished")])
    send(acme, NOW, cpu(1), agent=uuid4(), host="never-did")
    make_event_rule("absent", words="backup finished", thresholds={"warning": 3 * 3600.0})
    evaluation.evaluate(NOW)
    assert not Alert.objects.exists()
    evaluation.evaluate(NOW + HOUR + SECOND)
    alert = Alert.objects.get()
    assert alert.server.host == "nova-1"
    assert "with “backup finished” on nova-1 for 3 h" in alert.incident.event_set.get().text
    at = NOW + HOUR + MINUTE
    send(acme, at, events=[logged(at, "Backup finished")])
    evaluation.evaluate(at)
    alert.refresh_from_db()
    assert alert.resolved_at == at


def test_events_are_counted_a_second_and_by_regular_expression(acme, rules):  # noqa: F811
    make_event_rule("rate", window=MINUTE, thresholds={"warning": 0.05})
    make_event_rule("count", window=MINUTE, pattern=r"quota .* exceeded (?:for|by) \d+")
    lines = ["Quota ram exceeded for 7", "quota exceeded", "QUOTA x EXCEEDED BY 9"]
    send(acme, NOW, events=[logged(NOW, line) for line in lines])
    evaluation.evaluate(NOW)
    values = dict(Alert.objects.values_list("title", "value"))
    assert values == {"rate": pytest.approx(0.05), "count": 2}


@pytest.mark.parametrize(
    ("policy", "ended", "alerts"), [("ignore", True, 1), ("keep", False, 1), ("alert", False, 2)]
)
def test_missing_data_does_what_its_rule_says(acme, rules, policy, ended, alerts):  # noqa: F811
    make_rule(no_data=policy, window=MINUTE)
    send(acme, NOW, cpu(95))
    evaluation.evaluate(NOW)
    for minutes in range(1, 18):
        at = NOW + minutes * MINUTE
        send(acme, at, point("memory", {"percent": 5.0}))
        evaluation.evaluate(at)
    assert Alert.objects.count() == alerts
    assert (Alert.objects.earliest("pk").resolved_at is not None) == ended
    if policy == "alert":
        missing = Alert.objects.latest("pk")
        assert missing.incident.title == "No data: Busy"
        back = NOW + 18 * MINUTE
        send(acme, back, cpu(5))
        evaluation.evaluate(back)
        assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_silent_server_has_no_alert_for_missing_data(acme, rules):  # noqa: F811
    make_rule(no_data="alert", window=MINUTE)
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(5))
    for minutes in range(10):
        evaluation.evaluate(NOW + minutes * MINUTE)
    assert [alert.title for alert in Alert.objects.all()] == ["Server silent"]


def test_the_closest_rule_of_a_name_is_in_force(acme, rules):  # noqa: F811
    turin = CloudGroup.objects.create(name="Turin")
    for host in ("far", "near", "own", "off"):
        send(acme, NOW, cpu(75), agent=uuid4(), host=host)
    Server.objects.exclude(host="far").update(group=turin)
    make_rule(thresholds={"critical": 70})
    make_rule(thresholds={"warning": 70}, group=turin)
    make_rule(thresholds={"warning": 90}, server=Server.objects.get(host="own"))
    make_rule(enabled=False, server=Server.objects.get(host="off"))
    evaluation.evaluate(NOW)
    found = Alert.objects.values_list("server__host", "severity")
    assert sorted(found) == [("far", "critical"), ("near", "warning")]


def test_a_rule_with_tags_looks_at_those_series_only(acme, rules):  # noqa: F811
    make_rule(
        measurement="disk",
        tags={"mount": ["/var", "/srv"], "fstype": {"not": ["tmpfs"]}},
    )
    for mount, fstype in (("/", "ext4"), ("/var", "ext4"), ("/srv", "tmpfs")):
        send(acme, NOW, point("disk", {"percent": 99.0}, mount=mount, fstype=fstype),
             agent=uuid4(), host=f"host{mount}")  # fmt: skip
    evaluation.evaluate(NOW)
    assert Alert.objects.get().subject == "/var"


def test_a_recovery_must_last_before_the_alert_ends(acme, rules):  # noqa: F811
    make_rule(recovery_hold=2 * MINUTE)
    for minute, value in enumerate([95, 5, 95, 5, 5, 5]):
        at = NOW + minute * MINUTE
        send(acme, at, cpu(value))
        evaluation.evaluate(at)
    alert = Alert.objects.get()
    assert alert.resolved_at == NOW + 5 * MINUTE


def test_an_alert_keeps_what_it_was_judged_by(acme, rules, alice, client):  # noqa: F811
    rule = make_rule(hold=MINUTE, thresholds={"warning": 60, "critical": 90})
    for minute, value in enumerate([70, 70, 95, 95, 95, 95, 95, 5]):
        at = NOW + minute * MINUTE
        send(acme, at, cpu(value))
        evaluation.evaluate(at)
    alert = Alert.objects.get()
    kept = Judgement.objects.filter(fingerprint=alert.fingerprint)
    assert list(kept.values_list("decision", "value")) == [
        ("begins to hold", 70),
        ("opens", 70),
        ("becomes worse", 95),
        ("recovers", 5),
    ]
    assert set(kept.values_list("version", flat=True)) == {rule.version}
    client.force_login(alice)
    page = client.get(f"/o/acme/rules/alerts/{alert.pk}/").content.decode()
    assert "becomes worse" in page
    told = client.get(f"/o/acme/api/v1/alerts/{alert.pk}/judgements/").json()
    assert [one["decision"] for one in told][:2] == ["begins to hold", "opens"]


def test_one_long_alert_is_kept_in_some_dozens_of_lines(acme, rules):  # noqa: F811
    make_rule()
    for number in range(50):
        at = NOW + number * SECOND
        if number % 10 == 0:
            send(acme, at, cpu(95))
        evaluation.evaluate(at)
    assert Alert.objects.get().count == 50
    assert list(Judgement.objects.values_list("decision", flat=True)) == ["opens", *["holds"] * 3]


def test_long_windows_are_judged_less_often_and_new_rules_at_once(acme, rules):  # noqa: F811
    rule = make_rule(window=6 * HOUR, changed_at=NOW - HOUR)
    send(acme, NOW, cpu(95))
    evaluation.evaluate(NOW)
    assert Alert.objects.get().count == 1
    for seconds in range(5, 60, 5):  # its period is 6 min
        evaluation.evaluate(NOW + seconds * SECOND)
    assert Alert.objects.get().count <= 2
    Rule.objects.filter(pk=rule.pk).update(changed_at=NOW + 58 * SECOND)
    count = Alert.objects.get().count
    evaluation.evaluate(NOW + 59 * SECOND)
    assert Alert.objects.get().count == count + 1
