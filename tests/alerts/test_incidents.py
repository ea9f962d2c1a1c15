"""What people do with incidents."""

from __future__ import annotations

import pytest

from accounts.access import Access
from accounts.models import Membership, Role
from alerts.lifecycle import incidents
from alerts.models import Alert, Event, Incident, Rule
from alerts.pages import dressing
from alerts.rulebook import rules
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import NOON, SECOND, make_rule, make_server
from tests.alerts.test_breaches import read


@pytest.fixture
def incident(acme):
    read(make_rule(), make_server(), 90, NOON)
    return Incident.objects.get()


def test_who_acknowledges_first_has_it(incident, alice, bob):
    incidents.acknowledge(incident, alice, NOON)
    with pytest.raises(incidents.AlreadyAcknowledged):
        incidents.acknowledge(incident, bob, NOON + SECOND)
    incident.refresh_from_db()
    assert incident.taken_by == alice.pk


def test_what_is_resolved_is_neither_taken_nor_resolved_again(incident, alice):
    incidents.resolve(incident, alice, NOON)
    with pytest.raises(incidents.AlreadyResolved):
        incidents.acknowledge(incident, alice, NOON)
    with pytest.raises(incidents.AlreadyResolved):
        incidents.resolve(incident, alice, NOON)


def test_history_names_who_did_it(incident, alice):
    incidents.acknowledge(incident, alice, NOON)
    incidents.resolve(incident, alice, NOON + SECOND)
    assert list(incident.event_set.values_list("kind", "by")) == [
        (Event.Kind.OPENED, None),
        (Event.Kind.ACKNOWLEDGED, alice.pk),
        (Event.Kind.RESOLVED, alice.pk),
    ]


def test_a_viewer_reads_and_a_member_acts(incident, bob, client, acme):
    client.force_login(bob)
    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.VIEWER)
    assert client.get(f"/o/acme/incidents/{incident.pk}/").status_code == 200
    assert client.post(f"/o/acme/incidents/{incident.pk}/acknowledge/").status_code == 403
    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.MEMBER)
    assert client.post(f"/o/acme/incidents/{incident.pk}/acknowledge/").status_code == 302
    with in_schema(acme.schema_name):
        incident.refresh_from_db()
    assert incident.taken_by == bob.pk


def test_a_second_acknowledgement_over_the_api_is_a_conflict(incident, bob, client):
    client.force_login(bob)
    path = f"/o/acme/api/v1/incidents/{incident.pk}/acknowledge/"
    assert client.post(path).json()["acknowledged_by"] == bob.pk
    answer = client.post(path)
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/already-acknowledged"


def test_pages_of_incidents_show_what_happened(incident, bob, client):
    client.force_login(bob)
    page = client.get("/o/acme/incidents/").content.decode()
    assert "nova-1" in page
    assert "Busy" in page
    detail = client.get(f"/o/acme/incidents/{incident.pk}/").content.decode()
    assert "It is &lt;90&gt; (limit 60.0 %)" in detail
    for fragment in ("incident", "timeline"):
        alone = client.get(f"/o/acme/incidents/{incident.pk}/?fragment={fragment}")
        assert "<html" not in alone.content.decode()
    assert client.get(f"/o/acme/incidents/{incident.pk}/?fragment=nothing").status_code == 404


@pytest.mark.parametrize(
    ("services", "about"),
    [
        (["system", "system"], ""),
        (["nova-api"], "nova-api"),
        (["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
    ],
)
def test_an_incident_says_which_services_it_is_about(incident, services, about):
    first = incident.alert_set.get()
    first.delete()
    for number, service in enumerate(services):
        first.pk, first.fingerprint = None, f"{number}"
        first.service, first.subject = service, "cpu percent"
        first.save(force_insert=True)
    assert dressing.dressed(Incident.objects.all())[0].about == about


def test_somebody_may_be_quicker_than_the_slot_that_opened_it(acme):
    rule, server = make_rule(), make_server()
    read(rule, server, 90, NOON)
    incidents.resolve(Incident.objects.get(), None, NOON - SECOND)
    assert Incident.objects.get().resolved_at == NOON


@pytest.mark.parametrize(
    ("change", "ends"), [({"tags": {"cpu": "1"}}, True), ({"hold": SECOND}, False)]
)
def test_an_alert_ends_when_its_rule_looks_at_something_else(acme, alice, incident, change, ends):
    rule = Rule.objects.get(name="Busy")
    for name, value in change.items():
        setattr(rule, name, value)
    rules.save_rule(Access(acme, Role.OWNER, alice), rule, NOON + SECOND)
    incident.refresh_from_db()
    assert (incident.resolved_at is not None) is ends


def test_a_cause_stands_first_with_its_evidence_and_what_follows_is_folded(
    incident, bob, client, acme
):
    alert = incident.alert_set.get()
    for number in range(3):
        Alert.objects.create(
            incident=incident,
            server=make_server(f"compute-{number}"),
            fingerprint=f"f{number}",
            severity="error",
            service="nova-compute",
            subject="nova-compute",
            title="Service down",
            part=Alert.Part.SYMPTOM,
            opened_at=NOON,
            breached_at=NOON,
        )
    Alert.objects.filter(pk=alert.pk).update(part=Alert.Part.CAUSE)
    line = {
        "at": NOON.isoformat(),
        "server": alert.server_id,
        "host": "compute-0",
        "service": "nova-compute",
        "level": "error",
        "message": "AMQP server on 10.0.0.1:5672 is unreachable. <b>",
        "entry": "oslo-broker-unreachable",
        "count": 12,
        "servers": 3,
    }
    Incident.objects.update(
        cause="RabbitMQ", cause_key="rabbitmq:all",
        evidence={"lines": [line], "known": ["oslo-broker-unreachable", "gone"]},
    )  # fmt: skip
    client.force_login(bob)
    page = client.get(f"/o/acme/incidents/{incident.pk}/").content.decode()
    assert page.index("Probable cause") < page.index("What was seen") < page.index("Log lines")
    assert "nova-compute on 3 servers says" in page
    assert "3 on 3 servers" in page
    assert "systemctl status rabbitmq-server" in page
    assert "is unreachable. &lt;b&gt;" in page
    assert '<details class="pb" id="symptoms">' in page


def test_all_that_the_api_can_do_to_an_incident_its_page_can_do(incident, bob, alice, client, acme):
    client.force_login(bob)

    def post(action, **given):
        return client.post(f"/o/acme/incidents/{incident.pk}/{action}/", given).status_code

    assert post("acknowledge") == 302
    assert post("release") == 302
    assert post("assign", user=alice.pk) == 302
    assert post("assign", user="") == 302
    assert post("comment", text="Looking") == 302
    assert post("shelve", hours="4") == 302
    assert post("unshelve") == 302
    with in_schema(acme.schema_name):
        kinds = list(incident.event_set.values_list("kind", flat=True))
    assert kinds[1:] == [
        "acknowledged", "released", "assigned", "assigned", "commented", "shelved", "returned",
    ]  # fmt: skip
    page = client.get(f"/o/acme/incidents/{incident.pk}/").content.decode()
    for action in ("acknowledge", "resolve", "assign", "comment", "shelve"):
        assert f"/incidents/{incident.pk}/{action}/" in page


@pytest.mark.parametrize(
    ("action", "given"),
    [("assign", {"user": "x"}), ("shelve", {"hours": "5"}), ("comment", {}), ("unshelve", {})],
)
def test_what_an_incidents_page_is_given_wrongly_changes_nothing(
    incident, bob, client, acme, action, given
):
    client.force_login(bob)
    answer = client.post(f"/o/acme/incidents/{incident.pk}/{action}/", given)
    assert answer.status_code in (302, 409, 422)
    with in_schema(acme.schema_name):
        assert incident.event_set.count() == 1
