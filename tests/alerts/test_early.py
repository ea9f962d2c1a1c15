"""New data is judged as it comes where an installation looks often."""

from __future__ import annotations

import queue
from datetime import timedelta

import pytest

from alerts.engines import early


@pytest.fixture
def asked(monkeypatch):
    """Schemas for whose evaluation somebody asked, as they come."""
    found = queue.Queue()
    monkeypatch.setattr(
        early.current_app, "send_task", lambda name, args, **more: found.put(args[0][0])
    )
    return found


def test_where_one_looks_often_data_is_judged_as_it_comes(settings, asked):
    settings.TICK = timedelta(seconds=1)
    early.wake("t_quick")
    assert asked.get(timeout=10) == "t_quick"


def test_the_same_tenant_is_judged_at_most_a_few_times_a_tick(settings, asked):
    settings.TICK = timedelta(seconds=1)
    for _ in range(50):
        early.wake("t_busy")
    assert asked.get(timeout=10) == "t_busy"
    early.wake("t_busy")
    early.wake("t_other")
    assert asked.get(timeout=10) == "t_other", "the busy one waits for its turn"
    assert asked.get(timeout=10) == "t_busy"


def test_where_one_looks_seldom_the_tick_does_it(settings, monkeypatch):
    settings.TICK = timedelta(seconds=5)
    monkeypatch.setattr(early._asker, "put", lambda *_: pytest.fail("nobody has haste"))
    early.wake("t_slow")
