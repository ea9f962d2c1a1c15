"""Regular expressions that people give: none can hang anything. And what series a rule is for."""

from __future__ import annotations

import time

import pytest
from django.core.exceptions import ValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.models import Rule
from alerts.values import patterns, selectors

SLOW = ["(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*a){20}$", "([a-z]+)*@", "(x+x+)+y"]


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_would_take_others_for_ever_takes_us_a_moment(pattern):
    began = time.process_time()
    patterns.tester(pattern)("a" * 100_000 + "!")
    patterns.tester(pattern)("x" * 100_000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "no regular expression"),
        ("(?=a)b", "Look-around and back-references"),
        (r"(a)\1", "Look-around and back-references"),
        ("((a{100}){100}){100}", "too large"),
        ("x" * 301, "At most 300 characters"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_in_words(pattern, said):
    with pytest.raises(patterns.BadPattern, match=said):
        patterns.tester(pattern)
    if len(pattern) <= patterns.LONGEST:
        rule = Rule(name="R", kind="event", pattern=pattern, thresholds={"error": 1})
        with pytest.raises(ValidationError) as caught:
            rule.clean()
        assert said in caught.value.message_dict["pattern"][0]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pattern=st.text(max_size=60), message=st.text(max_size=200))
def test_any_text_is_a_pattern_or_refused(pattern, message):
    rule = Rule(name="R", kind="event", pattern=pattern, thresholds={"error": 1})
    try:
        rule.clean()
    except ValidationError:
        with pytest.raises(patterns.BadPattern):
            patterns.tester(pattern)
    else:
        assert not pattern or patterns.tester(pattern)(message) in (True, False)


TAGS = {"mount": "/var", "fstype": "ext4"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", True),
        ("mount=/var", True),
        ("mount=/", False),
        ("mount=/|/var", True),
        ("fstype!=tmpfs|overlay", True),
        ("fstype!=ext4", False),
        ("device=", True),
        ("device!=sda", True),
        ("device=sda", False),
        ("mount=/var, fstype=xfs", False),
    ],
)
def test_a_selector_means_equal_one_of_or_none_of(text, meant):
    selector = selectors.parse(text)
    assert selectors.matches(selector, TAGS) == meant
    assert selectors.parse(selectors.write(selector)) == selector
    assert selectors.error(selector) == ""


@pytest.mark.parametrize("text", ["mount", "=x", "mount=/,mount=/var"])
def test_a_selector_that_cannot_be_read_says_how_to_write_one(text):
    with pytest.raises(selectors.BadSelector, match=r"=|twice"):
        selectors.parse(text)


@pytest.mark.parametrize(
    "odd",
    [7, {"a": 1}, {"a": []}, {"a": {"is": ["x"]}}, {"a": {"not": "x"}}, {"a": "x|y"}, {1: "x"}],
)
def test_a_selector_of_an_odd_shape_is_refused(odd):
    assert selectors.error(odd)
