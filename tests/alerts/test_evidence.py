"""What was seen around an incident is still there when the log is not."""

from __future__ import annotations

import pytest

from alerts.lifecycle import evidence
from alerts.models import Alert, Incident
from clouds.models import Server
from metrics import events
from metrics.events import TooMuchToSearch
from tests.alerts.cascades import AMQP
from tests.alerts.test_evaluation import MINUTE, NOW, cpu, log, send

UNREACHABLE = AMQP.format(n=1)


@pytest.fixture
def closed(acme):
    """An incident of no known cause, which is over, and two lines of its server's log."""
    lines = (log(NOW, "error", UNREACHABLE, "a"), log(NOW, "error", "It is " + "long " * 400, "b"))
    send(acme, NOW, cpu(95), events=lines)
    incident = Incident.objects.create(
        title="Busy", severity="error", opened_at=NOW, resolved_at=NOW + MINUTE
    )
    Alert.objects.create(
        incident=incident,
        server=Server.objects.get(),
        fingerprint="f",
        severity="error",
        service="system",
        subject="cpu percent",
        title="Busy",
        opened_at=NOW,
        breached_at=NOW,
        resolved_at=NOW + MINUTE,
    )
    return incident


def test_lines_are_kept_with_an_incident_without_a_cause(closed):
    assert evidence.keep_lines(NOW + 5 * MINUTE) == 1
    closed.refresh_from_db()
    long, short = sorted(evidence.kept_lines(closed), key=lambda one: -len(one["message"]))
    assert short["message"] == UNREACHABLE
    assert len(long["message"]) == evidence.KEPT_TEXT
    (known,) = evidence.kept_known(closed)
    assert known.entry.id == "oslo-broker-unreachable"
    assert evidence.keep_lines(NOW + 6 * MINUTE) == 0, "once is enough"


def test_a_page_shows_what_was_kept_when_the_log_is_gone(acme, alice, client, closed, monkeypatch):
    evidence.keep_lines(NOW + 5 * MINUTE)
    monkeypatch.setattr(events, "search", lambda *_, **__: events.Page([], None))
    client.force_login(alice)
    page = client.get(f"/o/acme/incidents/{closed.pk}/").content.decode()
    assert UNREACHABLE in page
    assert "nova-1" in page


def test_what_is_open_or_was_closed_long_ago_or_has_its_evidence_is_left_alone(acme, closed):
    assert evidence.keep_lines(NOW + evidence.KEPT_WITHIN + 2 * MINUTE) == 0
    Incident.objects.update(evidence={"known": ["x"]})
    assert evidence.keep_lines(NOW + 5 * MINUTE) == 0
    Incident.objects.update(evidence={}, resolved_at=None)
    assert evidence.keep_lines(NOW + 5 * MINUTE) == 0


def test_a_page_of_an_incident_is_shown_though_its_log_takes_too_long_to_search(
    acme, alice, client, closed, monkeypatch
):
    def slow(*_, **__):
        raise TooMuchToSearch("Choose a shorter time, a server or a level.")

    monkeypatch.setattr(events, "search", slow)
    client.force_login(alice)
    answer = client.get(f"/o/acme/incidents/{closed.pk}/")
    assert answer.status_code == 200
    assert "Busy" in answer.content.decode()
