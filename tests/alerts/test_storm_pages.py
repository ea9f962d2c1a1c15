"""Pages and the API in a storm: what they read does not grow with an incident's alerts."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts.models import Alert, Event, Incident, Notification, NotificationChannel, Rule
from alerts.pages import dressing, queries
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, NOON, make_rule, make_server

STORM = 2000
PATHS = (
    "/o/acme/incidents/",
    "/o/acme/notices/",
    "/o/acme/incidents/{pk}/",
    "/o/acme/api/v1/incidents/",
    "/o/acme/api/v1/incidents/{pk}/",
)


def make_storm(alerts: int, **more) -> Incident:
    """One incident of so many alerts on half as many servers, with as many events."""
    rule = make_rule(f"Busy {alerts}")
    servers = [make_server(f"cmp-{alerts}-{number}") for number in range(max(1, alerts // 2))]
    incident = Incident.objects.create(
        title="RabbitMQ is down", severity="critical", opened_at=NOON, **more
    )
    Alert.objects.bulk_create(
        Alert(
            incident=incident,
            rule=rule,
            server=servers[number % len(servers)],
            fingerprint=f"{alerts}-{number}",
            severity="error",
            service=("nova-compute", "neutron-agent")[number % 2],
            subject="process",
            title="Service down",
            opened_at=NOON,
            breached_at=NOON,
            part="symptom" if number else "cause",
            resolved_at=NOON + MINUTE if number % 4 == 3 else None,
        )
        for number in range(alerts)
    )
    Event.objects.bulk_create(
        Event(incident=incident, kind="joined", at=NOON + number * MINUTE, text=f"{number} more")
        for number in range(alerts)
    )
    return incident


def asked(client, incident):
    """The statements of each page; and what it answered."""
    found = {}
    for path in PATHS:
        with CaptureQueriesContext(connection) as told:
            answer = client.get(path.format(pk=incident.pk))
        assert answer.status_code == 200
        found[path] = (len(told), len(answer.content))
    return found


def test_an_incident_of_thousands_is_read_like_one_of_three(acme, alice, client):
    client.force_login(alice)
    small = make_storm(4, cause="RabbitMQ on ctl-1")
    few = asked(client, small)
    with in_schema(acme.schema_name):
        small.delete()
        large = make_storm(STORM, cause="RabbitMQ on ctl-1")
    many = asked(client, large)
    for path in PATHS:
        assert many[path][0] <= few[path][0], path
        assert many[path][1] < 400_000, f"{path}: {many[path][1]} bytes"


def test_the_page_of_a_storm_counts_what_it_does_not_list(acme, alice, client):
    storm = make_storm(STORM, cause="RabbitMQ on ctl-1")
    client.force_login(alice)
    page = client.get(f"/o/acme/incidents/{storm.pk}/").content.decode()
    assert "1,999 symptoms" in page
    assert "2,000 in this incident, the worst 200 are listed" in page
    assert page.count('class="rowlink"') == queries.SHOWN
    with in_schema(acme.schema_name):
        first, second = dressing.symptoms(storm)
    assert (first["text"], first["count"], first["servers"], first["over"]) == (
        "Service down: neutron-agent", 1000, 500, 500,
    )  # fmt: skip
    assert (second["text"], second["count"], second["over"]) == (
        "Service down: nova-compute", 999, 0,
    )  # fmt: skip
    told = client.get(f"/o/acme/api/v1/incidents/{storm.pk}/").json()
    assert (told["alert_count"], len(told["alerts"])) == (STORM, 200)
    assert (told["event_count"], len(told["events"])) == (STORM, 200)
    assert told["events"][-1]["text"] == f"{STORM - 1} more"
    rest = client.get(f"/o/acme/api/v1/alerts/?incident={storm.pk}").json()
    assert {one["incident"] for one in rest["results"]} == {storm.pk}


@pytest.mark.parametrize(
    ("service", "subject"),
    [("nova-api", "process"), ("system", "cpu percent"), ("system", "/var"), ("logs", "error")],
)
def test_the_database_says_what_an_alert_is_about_as_the_alert_does(acme, service, subject):
    storm = make_storm(1)
    storm.alert_set.update(service=service, subject=subject, part="")
    (row,) = dressing.dressed(Incident.objects.all())
    assert row.about == storm.alert_set.get().about
    assert (row.server.host, row.host, row.alert_count) == ("cmp-1-0", "cmp-1-0", 1)


def test_an_incident_on_several_servers_is_on_none_of_them(acme):
    make_storm(4)
    (row,) = dressing.dressed(Incident.objects.all())
    assert (row.server, row.host, row.alert_count) == (None, "", 4)
    assert row.about == "nova-compute, neutron-agent"


def test_a_thing_of_another_tool_is_named_though_it_is_no_server(acme):
    storm = make_storm(2)
    storm.alert_set.update(server=None, resource="switch-1", rule=None)
    (row,) = dressing.dressed(Incident.objects.all())
    assert (row.server, row.host) == (None, "switch-1")


def test_a_silent_server_is_about_nothing_but_itself(acme):
    storm = make_storm(1)
    Rule.objects.update(kind=Rule.Kind.SILENCE)
    storm.alert_set.update(service="agent", subject="report")
    (row,) = dressing.dressed(Incident.objects.all())
    assert row.about == ""


def test_the_worst_alert_of_each_server_is_the_newest_of_the_worst(acme):
    storm = make_storm(8)
    newest = storm.alert_set.filter(resolved_at=None, server__host="cmp-8-0").latest("pk")
    one = newest.server_id
    assert queries.worst_by_server([one]) == {one: newest}
    worse = storm.alert_set.filter(server=one).order_by("pk")[0]
    Alert.objects.filter(pk=worse.pk).update(severity="critical")
    assert queries.worst_by_server([one]) == {one: worse}
    assert queries.open_alerts_on(one) == {"critical": 1, "error": 1, "warning": 0, "info": 0}


def test_who_was_told_a_thousand_times_is_told_of_lately(acme, django_assert_max_num_queries):
    storm = make_storm(1)
    channel = NotificationChannel.objects.create(name="Ops", kind="email", config={"to": "a@b.c"})
    Notification.objects.bulk_create(
        Notification(incident=storm, channel=channel, transition=f"repeated:{n}", due_at=NOON)
        for n in range(1000)
    )
    with django_assert_max_num_queries(4):
        assert len(queries.history(storm)) == queries.SHOWN + 1
