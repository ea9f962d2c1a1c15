"""Limits and numbers: what is a breach, and how bad."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.values.thresholds import COMPARISONS, SEVERITIES, Breach, Limits, errors, judge

LADDER = Limits(">", {"warning": 80, "critical": 95}, recovery=70)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.mark.parametrize(
    ("value", "severity"), [(80, None), (80.1, "warning"), (95, "warning"), (95.1, "critical")]
)
def test_the_worst_limit_that_holds_gives_the_severity(value, severity):
    breach = judge(LADDER, value, is_open=False)
    assert (breach.severity if breach else None) == severity


def test_an_open_alert_stays_open_down_to_its_recovery():
    assert judge(LADDER, 75, is_open=True) == Breach("warning", 80)
    assert judge(LADDER, 75, is_open=False) is None
    assert judge(LADDER, 70, is_open=True) is None


def test_falling_values_breach_downward():
    limits = Limits("<", {"warning": 10, "critical": 5}, recovery=12)
    assert judge(limits, 4, is_open=False) == Breach("critical", 5)
    assert judge(limits, 11, is_open=True) == Breach("warning", 10)
    assert judge(limits, 12, is_open=True) is None


@given(
    comparison=st.sampled_from(sorted(COMPARISONS)),
    limits=st.dictionaries(st.sampled_from(SEVERITIES), NUMBERS, min_size=1),
    value=NUMBERS,
    is_open=st.booleans(),
)
def test_a_breach_always_names_a_limit_that_holds(comparison, limits, value, is_open):
    breach = judge(Limits(comparison, limits), value, is_open)
    held = [name for name in limits if COMPARISONS[comparison](value, limits[name])]
    assert (breach is None) == (not held)
    if breach:
        assert breach.limit == limits[breach.severity]
        assert all(SEVERITIES.index(breach.severity) >= SEVERITIES.index(name) for name in held)


@given(value=NUMBERS)
def test_an_open_alert_never_resolves_where_a_new_one_would_open(value):
    if judge(LADDER, value, is_open=False):
        assert judge(LADDER, value, is_open=True)


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (Limits(">", {}), "thresholds"),
        (Limits(">", {"bad": 1}), "thresholds"),
        (Limits(">", {"warning": 90, "critical": 80}), "thresholds"),
        (Limits("<", {"warning": 5, "critical": 10}), "thresholds"),
        (Limits(">", {"warning": 80}, recovery=81), "recovery"),
        (Limits("<", {"warning": 10}, recovery=9), "recovery"),
    ],
)
def test_limits_that_make_no_sense_are_named_by_field(limits, field):
    assert field in errors(limits)


def test_sound_limits_have_no_errors():
    assert errors(LADDER) == {}
