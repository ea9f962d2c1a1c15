"""What other people's tools may send a minute; more is refused with the time to come again."""

from __future__ import annotations

import pytest

from alerts.doors import pace
from alerts.models import Alert
from tests.alerts.alertas import send, through
from tests.alerts.test_alertmanager_door import firing, post


def test_a_bucket_is_emptied_and_fills_as_time_goes_on():
    bucket = pace.Bucket()
    assert bucket.take("a", 60, 0, 60) == 0
    assert bucket.take("a", 1, 0, 60) == 1
    assert bucket.take("b", 60, 0, 60) == 0, "each organization has its own"
    assert bucket.take("a", 30, 20, 60) == 10
    assert bucket.take("a", 20, 20, 60) == 0
    assert bucket.take("a", 60, 1000, 60) == 0
    assert bucket.take("a", 1, 1000, 60) == 1, "it holds no more than a minute's"


def test_more_than_it_holds_is_taken_when_it_is_full():
    bucket = pace.Bucket()
    assert bucket.take("a", 1000, 0, 60) == 0
    assert bucket.take("a", 1000, 30, 60) == 30
    assert bucket.take("a", 1000, 60, 60) == 0


@pytest.fixture
def narrow(monkeypatch, settings):
    for name in ("_bucket", "_ends"):
        monkeypatch.setattr(pace, name, pace.Bucket())
    settings.ALERTS_PER_MINUTE = 2


@pytest.mark.parametrize("way", ["django", "hot"])
def test_too_many_alerts_are_refused_and_ends_have_room_of_their_own(ingest, narrow, way):
    with through(way):
        for event in ("a", "b"):
            assert send(ingest, event=event, severity="major").status_code == 201
        refused = send(ingest, event="c", severity="major")
        assert (refused.status_code, refused.json()["status"]) == (429, "error")
        assert 0 < int(refused.headers["Retry-After"]) <= 31
        assert send(ingest, event="a", severity="normal").status_code == 201
        assert send(ingest, event="a", severity="normal").status_code == 202
        assert send(ingest, event="a", severity="normal").status_code == 429
    assert Alert.objects.filter(resolved_at=None).count() == 1


def test_a_prometheus_is_asked_to_come_again_and_its_ends_are_taken(acme, ingest, narrow):
    post(ingest, [firing("A"), firing("B")])
    ends = {**firing("A"), "status": "resolved"}
    answer = post(ingest, [ends, firing("C"), firing("D")])
    assert answer.status_code == 429
    assert [one.title for one in Alert.objects.filter(resolved_at=None)] == ["B"]
