"""What an alert says is what an operator would say."""

from __future__ import annotations

from datetime import timedelta

import pytest

from alerts.models import Rule
from alerts.rulebook.defaults import RULES
from alerts.values import sentences
from alerts.values.sentences import Measured, Seen
from tests.alerts.builders import MINUTE, NOON

SEEN = Seen("ctl1", "system", "cpu percent", 93.4, "percent", {}, NOON + 3 * MINUTE)
LATER = NOON + 10 * MINUTE


def measured(measurement: str, field: str, aggregation="avg", comparison=">") -> Measured:
    return Measured(measurement, field, aggregation, comparison, 5 * MINUTE)


def seen(**changes) -> Seen:
    return SEEN._replace(**changes)


NOVA = seen(
    service="nova-scheduler",
    subject="nova",
    value=1.0,
    unit="count",
    tags={"service": "nova-scheduler", "project": "nova"},
)


def test_a_service_that_is_down_is_told_by_name_host_time_and_project():
    rule = measured("service", "down", "last", ">=")
    assert sentences.holds(rule, NOVA, 1, LATER) == (
        "nova-scheduler is down on ctl1 since 12:03 UTC (nova)"
    )
    assert sentences.over(rule, NOVA, LATER) == "nova-scheduler is up again on ctl1 (nova)."
    assert sentences.title(rule, "nova-scheduler") == "nova-scheduler is down"


def test_one_that_hangs_is_not_said_to_be_down():
    rule = measured("service", "ports_silent", "last", ">=")
    said = sentences.holds(rule, NOVA._replace(value=2.0), 1, LATER)
    assert said == "nova-scheduler runs on ctl1 and does not answer since 12:03 UTC (nova)"


def test_a_time_of_another_day_names_the_day():
    rule = measured("service", "down", "last", ">=")
    assert " since 1 Mar 12:03 UTC" in sentences.holds(rule, NOVA, 1, LATER + timedelta(days=2))


@pytest.mark.parametrize(
    ("rule", "one", "limit", "said"),
    [
        (
            measured("cpu", "percent"), SEEN, 90,
            "The processors of ctl1 are 93.4 % busy, averaged over 5 min (limit 90.0 %)",
        ),
        (
            measured("disk", "percent", "last"), seen(subject="/var"), 85,
            "/var on ctl1 is 93.4 % full (limit 85.0 %)",
        ),
        (
            measured("load", "load_per_core"), seen(value=2.5, unit="count"), 2,
            "The load of ctl1 is 2.5 for each core, averaged over 5 min (limit 2)",
        ),
        (
            measured("backup", "seconds", "max"),
            seen(value=41.0, unit="seconds", tags={"target": "s3"}), 30,
            "backup seconds of s3 on ctl1 is 41 s, the most within 5 min (limit 30 s)",
        ),
        (
            measured("memory", "percent", comparison="<"), SEEN, 95,
            "memory percent on ctl1 is 93.4 %, averaged over 5 min (limit at least 95.0 %)",
        ),
    ],
)  # fmt: skip
def test_a_number_is_told_with_where_it_is_and_its_limit(rule, one, limit, said):
    assert sentences.holds(rule, one, limit, LATER) == said


def test_a_rule_that_looks_the_other_way_never_says_the_opposite():
    up = measured("service", "down", "last", "<")
    assert "is down" not in sentences.holds(up, NOVA, 1, LATER)
    assert sentences.title(up, "nova-scheduler") == ""


def test_every_built_in_rule_on_a_metric_has_words_of_its_own():
    for values in RULES:
        rule = Rule(**values)
        if rule.kind == Rule.Kind.METRIC:
            assert Measured.by(rule).sentence is not sentences.OF_ANY, rule.name


@pytest.mark.parametrize("value", [-1e15, 1e15, 1e100])
def test_a_span_that_nothing_lasts_is_told_as_the_longest(value):
    said = sentences.holds(
        measured("certificate", "seconds_left", "last", "<"),
        seen(value=value, unit="seconds", tags={"path": "/etc/ssl/a.pem"}),
        1e15,
        LATER,
    )
    assert "1157407 d" in said
