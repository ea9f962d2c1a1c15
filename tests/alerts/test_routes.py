"""Routes: who is told of what, when, how often, and why."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from alerts.dispatching import dispatch, escalations, routes
from alerts.lifecycle import incidents
from alerts.models import Alert, Escalation, Incident, Notification, Route, RouteStep
from alerts.telling import delivery
from clouds import suppression
from clouds.models import CloudGroup
from clouds.suppression import Why
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, NOON, SECOND, make_rule, make_server
from tests.alerts.test_breaches import read
from tests.alerts.test_delivery import channel, open_incidents, recorder  # noqa: F401

pytestmark = pytest.mark.usefixtures("recorder")


def make_route(name, *steps, **more):
    """A route whose steps are (after, channels)."""
    groups = more.pop("groups", [])
    route = Route.objects.create(name=name, **more)
    route.groups.set(groups)
    for after, channels in steps:
        RouteStep.objects.create(route=route, after=after).channels.set(channels)
    return route


NOW = timedelta()


def told():
    """Channels and transitions, as they were queued."""
    rows = Notification.objects.order_by("pk").values_list("channel__name", "transition")
    return [(name, transition.split(":")[0]) for name, transition in rows]


def test_without_a_route_every_channel_is_told():
    channel("a"), channel("b", least_severity="critical")
    open_incidents(1, NOON)
    assert told() == [("To a", "opened")]


def test_the_first_route_that_fits_decides():
    a, b = channel("a"), channel("b")
    make_route("Worst", (NOW, [a]), least_severity="critical", position=1)
    make_route("Rest", (NOW, [b]), position=2)
    open_incidents(1, NOON, severity="critical")
    open_incidents(1, NOON, first=1)
    assert told() == [("To a", "opened"), ("To b", "opened")]


def test_a_route_that_goes_on_lets_others_tell_too():
    a, b = channel("a"), channel("b")
    make_route("Log", (NOW, [a]), position=1, goes_on=True)
    make_route("Rest", (NOW, [b]), position=2)
    open_incidents(1, NOON)
    assert sorted(told()) == [("To a", "opened"), ("To b", "opened")]


def test_what_no_route_fits_is_lost_by_no_means():
    a, _ = channel("a"), channel("b")
    make_route("Worst", (NOW, [a]), least_severity="critical")
    open_incidents(1, NOON)
    assert sorted(told()) == [("To a", "opened"), ("To b", "opened")]


def test_a_route_by_cloud_group_and_service():
    a, b = channel("a"), channel("b")
    berlin = CloudGroup.objects.create(name="Berlin")
    make_route("Nova", (NOW, [a]), groups=[berlin], services=["nova-*"])
    make_route("Rest", (NOW, [b]), position=99)
    here, there = make_server("n1", group=berlin), make_server("n2")
    open_incidents(1, NOON, 1, server=here.pk, service="nova-compute")
    open_incidents(1, NOON, 2, server=here.pk, service="cinder-volume")
    open_incidents(1, NOON, 3, server=there.pk, service="nova-compute")
    assert [name for name, _ in told()] == ["To a", "To b", "To b"]


def test_what_comes_and_goes_is_not_still_there_while_it_is_gone():
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    open_incidents(1, NOON)
    Incident.objects.update(flapping_until=NOON + 60 * MINUTE)
    Alert.objects.update(resolved_at=NOON + 5 * MINUTE)
    escalations.pursue(NOON + 10 * MINUTE)
    assert told() == [("To a", "opened")]
    assert escalations.next_at() == NOON + 11 * MINUTE
    Alert.objects.update(resolved_at=None)
    escalations.pursue(NOON + 11 * MINUTE)
    assert told()[1:] == [("To b", "escalated")]


@pytest.mark.parametrize(
    ("at", "works"),
    [
        (datetime(2026, 3, 2, 8, 59, tzinfo=UTC), True),  # Monday 09:59 in Berlin
        (datetime(2026, 3, 2, 7, 59, tzinfo=UTC), False),  # 08:59
        (datetime(2026, 3, 2, 16, 0, tzinfo=UTC), False),  # 17:00
        (datetime(2026, 3, 30, 7, 30, tzinfo=UTC), True),  # Monday 09:30, summer time
        (datetime(2026, 3, 1, 10, 0, tzinfo=UTC), False),  # Sunday
    ],
)
def test_working_hours_are_those_of_their_time_zone(at, works):
    route = Route(hours="during", zone="Europe/Berlin")
    assert routes.works_at(route, at) is works


def test_working_hours_past_midnight_belong_to_the_day_they_begin_on():
    route = Route(hours="during", days="5", begins=time(22), ends=time(6))
    friday = datetime(2026, 3, 6, 23, tzinfo=UTC)
    assert routes.works_at(route, friday)
    assert routes.works_at(route, friday + timedelta(hours=6))
    assert not routes.works_at(route, friday + timedelta(hours=24))
    assert not routes.works_at(route, friday - timedelta(hours=20))


def test_at_night_others_are_told_than_by_day():
    day, night = channel("day"), channel("night")
    make_route("Office", (NOW, [day]), hours="during", position=1)
    make_route("On call", (NOW, [night]), position=2)
    open_incidents(1, datetime(2026, 3, 2, 12, tzinfo=UTC))
    open_incidents(1, datetime(2026, 3, 2, 22, tzinfo=UTC), first=1)
    assert [name for name, _ in told()] == ["To day", "To night"]


def test_who_is_not_asked_in_time_is_followed_by_more_people_and_repeats():
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]), repeat=30 * MINUTE)
    open_incidents(1, NOON)
    escalations.pursue(NOON + 9 * MINUTE)
    assert told() == [("To a", "opened")]
    escalations.pursue(NOON + 10 * MINUTE)
    assert told()[1:] == [("To b", "escalated")]
    escalations.pursue(NOON + 39 * MINUTE)
    assert len(told()) == 2
    escalations.pursue(NOON + 40 * MINUTE)
    assert sorted(told()[2:]) == [("To a", "repeated"), ("To b", "repeated")]
    delivery.deliver_due(NOON + 41 * MINUTE)
    assert not Notification.objects.filter(state="waiting").exists()


@pytest.mark.parametrize("end", ["taken", "over"])
def test_nothing_is_told_again_once_it_is_taken_or_over(alice, end):
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]), repeat=30 * MINUTE)
    open_incidents(1, NOON)
    incident = Incident.objects.get()
    if end == "taken":
        incidents.acknowledge(incident, alice, NOON + MINUTE)
    else:
        incidents.resolve(incident, alice, NOON + MINUTE)
    escalations.pursue(NOON + 10 * MINUTE)
    assert not Escalation.objects.exists()
    assert all(transition in ("opened", "resolved") for _, transition in told())


def test_a_muted_incident_is_not_pursued_meanwhile():
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    server = make_server()
    read(make_rule(), server, 90, NOON)
    suppression.black_out(server, Why("at it", by=1), NOON + MINUTE, NOON + 20 * MINUTE)
    escalations.pursue(NOON + 10 * MINUTE)
    assert [name for name, _ in told()] == ["To a"]
    escalations.pursue(NOON + 21 * MINUTE)
    assert [name for name, _ in told()] == ["To a", "To b"]


def test_an_evaluation_comes_when_a_step_is_due():
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    open_incidents(1, NOON)
    assert escalations.next_at() == NOON + 10 * MINUTE


def test_what_is_held_back_begins_to_wait_for_somebody_when_it_is_told():
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    open_incidents(1, NOON)
    Escalation.objects.all().delete()
    dispatch.queue(Incident.objects.get(), "reopened:1", NOON, not_before=NOON + 30 * SECOND)
    assert escalations.next_at() == NOON + 10 * MINUTE + 30 * SECOND


def test_queueing_takes_as_many_statements_for_many_incidents_as_for_one(
    django_assert_max_num_queries,
):
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    with django_assert_max_num_queries(45):
        open_incidents(200, NOON)


def test_the_preview_says_who_and_why(acme, client, alice):
    a = channel("a")
    make_route("Worst", (NOW, [a]), (10 * MINUTE, [a]), least_severity="critical", position=1)
    make_route("Rest", (NOW, []), position=2, services=["nova-*"])
    client.force_login(alice)
    found = client.get("/o/acme/api/v1/routes/preview/?severity=warning").json()
    assert [(one["fits"], one["why"]) for one in found] == [
        (False, "It is for critical and worse."),
        (False, "It is for the services nova-*."),
        (True, "No route fits: every channel is told."),
    ]
    page = client.get("/o/acme/routes/?severity=critical").content.decode()
    assert "It fits." in page
    assert "after 10 min without anybody taking it" in page


def test_routes_are_changed_by_the_api_and_by_the_form(acme, client, alice):
    a, b = channel("a"), channel("b")
    client.force_login(alice)
    body = {
        "name": "On call",
        "services": ["nova-*"],
        "repeat": 600,
        "steps": [{"after": 0, "channels": [a.pk]}, {"after": 300, "channels": [b.pk]}],
    }
    made = client.post("/o/acme/api/v1/routes/", body, content_type="application/json")
    assert made.status_code == 201, made.content
    assert made.json()["steps"] == body["steps"]
    path = f"/o/acme/routes/{made.json()['id']}/"
    page = client.get(path).content.decode()
    assert 'value="nova-*"' in page
    assert 'value="5 min"' in page
    form = {
        "name": "On call",
        "position": "3",
        "enabled": "on",
        "least_severity": "error",
        "services": "",
        "hours": "during",
        "days": ["1", "2"],
        "begins": "08:00",
        "ends": "18:00",
        "zone": "Europe/Berlin",
        "repeat": "",
        "channels_0": [a.pk],
        "after_1": "15 min",
        "channels_1": [b.pk],
    }
    assert client.post(path, form).status_code == 302
    with in_schema(acme.schema_name):
        route = Route.objects.get()
        assert (route.days, route.repeat, route.services) == ("12", None, [])
        assert [step.after for step in route.steps.all()] == [NOW, 15 * MINUTE]
    wrong = client.post(path, {**form, "zone": "Mars/Base", "after_1": ""})
    assert wrong.status_code == 422
    assert "There is no time zone Mars/Base" in wrong.content.decode()
    assert "Say after how long" in wrong.content.decode()


def test_members_change_no_route(acme, client, bob):
    client.force_login(bob)
    assert client.get("/o/acme/routes/new/").status_code == 403
    answer = client.post("/o/acme/api/v1/routes/", {}, content_type="application/json")
    assert answer.status_code == 403
    assert client.get("/o/acme/api/v1/routes/").status_code == 200
