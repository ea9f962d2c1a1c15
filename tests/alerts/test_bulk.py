"""Many breaches of one evaluation: as many statements as for one."""

from __future__ import annotations

import hashlib
import json
import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts import bulk
from alerts.engines import breaches
from alerts.lifecycle import incidents
from alerts.models import Alert, Event, Incident, Judgement, Notification, Severity
from clouds.models import Server
from tests.alerts.builders import MINUTE, NOON, make_rule, make_server


def found(rule, server, **more):
    more.setdefault("fingerprint", f"{rule.pk if rule else 'other'}-{server}")
    return incidents.Found(
        **{
            "rule": rule,
            "reading": 90.0,
            "limit": 60.0,
            "severity": Severity.WARNING,
            "server": server,
            "service": "system",
            "subject": "cpu percent",
            "unit": "percent",
            "text": "It is 90 %",
            "held_since": NOON,
            "title": "Busy",
            **more,
        }
    )


def fleet(count):
    """Servers with ids, made at once."""
    return [
        server.pk
        for server in Server.objects.bulk_create(
            Server(host=f"nova-{number}", registered_at=NOON, status_since=NOON)
            for number in range(count)
        )
    ]


def statements(work):
    with CaptureQueriesContext(connection) as context:
        work()
    return len(context)


def test_a_hundred_are_opened_counted_and_ended_with_the_statements_of_one(acme):
    rule, other = make_rule(), make_rule("Other")
    servers = fleet(100)
    one, all_ = [found(rule, servers[0])], [found(other, server) for server in servers]
    opening = statements(lambda: incidents.open_all(one, NOON))
    assert statements(lambda: incidents.open_all(all_, NOON)) == opening
    counting = statements(lambda: incidents.open_all(one, NOON + MINUTE))
    assert statements(lambda: incidents.open_all(all_, NOON + MINUTE)) == counting
    assert set(Alert.objects.values_list("count", flat=True)) == {2}

    def over(rule):
        return [
            incidents.Recovered(alert, 10, "Fine.") for alert in Alert.objects.filter(rule=rule)
        ]

    ends, all_ends = over(rule), over(other)
    ending = statements(lambda: incidents.recover_all(ends, NOON + 2 * MINUTE))
    assert abs(statements(lambda: incidents.recover_all(all_ends, NOON + 2 * MINUTE)) - ending) <= 1
    assert not Incident.objects.filter(resolved_at=None).exists()
    assert set(Alert.objects.values_list("value", flat=True)) == {10}
    assert Event.objects.filter(kind=Event.Kind.RESOLVED).count() == 101
    assert Notification.objects.count() == 202
    assert set(Server.objects.values_list("health", flat=True)) == {"ok"}


def test_the_same_found_twice_at_once_is_one_alert(acme):
    rule, server = make_rule(), make_server()
    incidents.open_all([found(rule, server.pk), found(rule, server.pk)], NOON)
    assert Alert.objects.count() == 1


def test_what_is_on_no_server_of_ours_is_told_too(acme):
    row = found(None, None, origin="alerta", resource="db-1", fingerprint="theirs")
    incidents.open_all([row], NOON)
    assert Alert.objects.get().host == "db-1"
    assert Notification.objects.count() == 1


def test_what_another_tool_found_is_an_alert_that_no_rule_of_ours_ends(acme):
    server = make_server()
    row = found(None, server.pk, origin="alertmanager", title="TargetDown\0", subject="")
    outcome = incidents.open_all([row], NOON)[row.fingerprint]
    breaches.resolve_orphans(NOON + MINUTE)
    alert = Alert.objects.get(pk=outcome.alert)
    assert (alert.origin, alert.title, alert.subject) == ("alertmanager",) + ("TargetDown�",) * 2
    assert alert.resolved_at is None


@pytest.mark.parametrize(
    "tags", [{}, {"mount": "/var", "device": "sda"}, {"a": "é"}, {"a": 'q"\\'}, {"a": "\x7f\n/"}]
)
def test_the_fingerprint_of_a_series_is_what_it_was_in_every_version(acme, tags):
    rule = make_rule()
    text = json.dumps([rule.pk, 7, sorted(tags.items())], separators=(",", ":"))
    assert breaches.fingerprint(rule, 7, tags) == hashlib.sha256(text.encode()).hexdigest()[:40]


def test_rows_that_are_alike_or_not_are_inserted_and_changed_as_they_are(acme):
    given = [
        {
            "version": 1,
            "fingerprint": name,
            "at": NOON,
            "value": value,
            "limit": None,
            "decision": "opens",
        }
        for name, value in (("a", 1.5), ("b", None), ("c", 1.5))
    ]
    for rows in (given, given[:1], [given[0]] * 2):
        Judgement.objects.all().delete()
        first = bulk.insert(Judgement, rows)
        stored = Judgement.objects.order_by("pk").values(*given[0])
        assert list(stored) == rows
        ids = list(Judgement.objects.order_by("pk").values_list("pk", flat=True))
        assert first == ids[0]
        changed = bulk.update(
            Judgement, [{"id": pk, "limit": 7.0} for pk in ids], '"limit" = given."limit"'
        )
        assert sorted(changed) == [(pk,) for pk in sorted(ids)]
        assert set(Judgement.objects.values_list("limit", flat=True)) == {7.0}


@pytest.mark.parametrize("some", [[], [0], [0, 2], [2, 2]])
def test_among_finds_what_in_finds(acme, some):
    servers = fleet(3)
    rule = make_rule()
    incidents.open_all([found(rule, server) for server in servers], NOON)
    wanted = [servers[number] for number in some]
    for field in ("pk", "server"):
        model = Server if field == "pk" else Alert
        expected = set(model.objects.filter(**{f"{field}__in": wanted}))
        assert set(model.objects.filter(**{f"{field}__among": wanted})) == expected
        rest = model.objects.exclude(**{f"{field}__among": wanted})
        assert set(rest) == set(model.objects.all()) - expected


@pytest.mark.parametrize("count", [2000])
def test_thousands_of_breaches_at_once_are_opened_fast(acme, count):
    """A coarse guard; `benchmarks/alerts.py` measures."""
    rule = make_rule()
    founds = [found(rule, server) for server in fleet(count)]
    before = time.process_time()
    incidents.open_all(founds, NOON)
    assert Alert.objects.count() == count
    assert time.process_time() - before < count / 1000
