"""The REST API as a script uses it: with a key, field-level errors, keyset pages, one document."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import call_command

from accounts import keys
from accounts.models import AuditEntry, Key
from alerts.models import NotificationChannel, Rule
from clouds.models import CloudGroup, Server
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import NOON, make_rule, make_server
from tests.alerts.test_breaches import read

pytestmark = pytest.mark.django_db


class Api:
    """A script with a key of acme."""

    def __init__(self, client, text):
        self.client, self.headers = client, {"Authorization": f"Bearer {text}"}

    def __call__(self, method, path, body=None, status=None):
        content = {} if body is None else {"data": json.dumps(body)}
        answer = getattr(self.client, method)(
            f"/o/acme/api/v1/{path}",
            **content,
            content_type="application/json",
            headers=self.headers,
        )
        if status:
            assert answer.status_code == status, answer.content
        return answer.json() if answer.content else None


@pytest.fixture
def admin(acme, client):
    return Api(client, keys.issue(acme, Key.Scope.ADMIN)[1])


@pytest.fixture
def reader(acme, client):
    return Api(client, keys.issue(acme, Key.Scope.READ)[1])


RULE = {
    "name": "CPU high",
    "measurement": "cpu",
    "field": "percent",
    "thresholds": {"warning": 60},
    "window": 20,
    "hold": 20,
}


def test_a_rule_is_made_changed_and_deleted(admin, acme):
    made = admin("post", "rules/", RULE, 201)
    assert (made["window"], made["hold"], made["aggregation"]) == (20.0, 20.0, "avg")
    changed = admin("patch", f"rules/{made['id']}/", {"thresholds": {"critical": 90}}, 200)
    assert changed["thresholds"] == {"critical": 90.0}
    assert admin("get", f"rules/{made['id']}/", status=200)["thresholds"] == {"critical": 90.0}
    admin("delete", f"rules/{made['id']}/", status=204)
    admin("get", f"rules/{made['id']}/", status=404)
    verbs = AuditEntry.objects.filter(tenant=acme).order_by("pk").values_list("verb", flat=True)
    assert list(verbs)[-3:] == ["rule.added", "rule.changed", "rule.deleted"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"measurement": ""}, "measurement"),
        ({"field": ""}, "field"),
        ({"thresholds": {}}, "thresholds"),
        ({"thresholds": {"terrible": 1}}, "thresholds"),
        ({"thresholds": {"warning": 90, "critical": 80}}, "thresholds"),
        ({"thresholds": {"warning": "much"}}, "thresholds"),
        ({"thresholds": []}, "thresholds"),
        ({"recovery": 61}, "recovery"),
        ({"window": 0}, "window"),
        ({"window": -5}, "window"),
        ({"window": 1e300}, "window"),
        ({"window": "soon"}, "window"),
        ({"hold": 100_000}, "hold"),
        ({"comparison": "~"}, "comparison"),
        ({"aggregation": "median"}, "aggregation"),
        ({"kind": "weather"}, "kind"),
        ({"server": 123456}, "server"),
        ({"tags": {"mount": 7.5}, "name": ""}, "name"),
        ({"level": "terrible"}, "level"),
        ({"name": "Processor busy"}, "name"),
        ({"name": "x" * 200}, "name"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_field_by_field(admin, acme, change, field):
    problem = admin("post", "rules/", {**RULE, **change}, 422)
    assert problem["type"] == "/problems/not-valid"
    assert field in problem["errors"], problem
    with in_schema(acme.schema_name):
        assert not Rule.objects.filter(name="CPU high").exists()


def test_a_refused_change_leaves_a_rule_as_it_was(admin):
    made = admin("post", "rules/", RULE, 201)
    admin("patch", f"rules/{made['id']}/", {"thresholds": {"warning": 90, "critical": 80}}, 422)
    assert admin("get", f"rules/{made['id']}/")["thresholds"] == {"warning": 60.0}


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b"\xff", b"null", b"[" * 5000])
def test_what_is_no_object_gets_a_problem_document(admin, body):
    answer = admin.client.post(
        "/o/acme/api/v1/rules/", body, content_type="application/json", headers=admin.headers
    )
    assert answer.status_code in (400, 422)
    assert answer["Content-Type"] == "application/problem+json"


def test_a_body_that_is_too_large_is_not_read(admin):
    answer = admin.client.post(
        "/o/acme/api/v1/rules/",
        b'"' + b"x" * 2_000_000 + b'"',
        content_type="application/json",
        headers=admin.headers,
    )
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"


def test_a_read_key_reads_and_changes_nothing(reader):
    assert reader("get", "rules/", status=200)["results"]
    refused = reader("post", "rules/", RULE, 403)
    assert refused["needs"] == "member"
    reader("post", "channels/", {}, 403)
    reader("post", "keys/", {"scope": "read"}, 403)


def test_channels_show_no_secret(admin, acme):
    made = admin(
        "post",
        "channels/",
        {"name": "Ops", "kind": "slack", "config": {"url": "https://hooks.slack.com/T/B/secret"}},
        201,
    )
    assert made["config"] == {"url": "hooks.slack.com/…"}
    with in_schema(acme.schema_name):
        kept = NotificationChannel.objects.get(pk=made["id"]).config
    assert kept == {"url": "https://hooks.slack.com/T/B/secret"}


def test_a_webhooks_secret_is_made_shown_once_and_kept(admin, acme):
    hook = {"name": "Bot", "kind": "webhook", "config": {"url": "https://bot.example.org/in/t0"}}
    made = admin("post", "channels/", hook, 201)
    secret = made["config"]["secret"]
    assert secret.startswith("whsec_")
    path = f"channels/{made['id']}/"
    moved = admin("patch", path, {"config": {"url": "https://bot.example.org/out"}}, 200)
    cut = {"url": "bot.example.org/…", "secret": "…"}
    assert moved["config"] == admin("get", path, status=200)["config"] == cut
    with in_schema(acme.schema_name):
        kept = NotificationChannel.objects.get(pk=made["id"]).config
    assert kept == {"url": "https://bot.example.org/out", "secret": secret}
    admin("put", path, {**hook, "config": cut}, 422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "kind": "pigeon", "config": {}}, "kind"),
        ({"name": "x", "kind": "webhook", "config": {"url": "https://a:b@c.example/"}}, "config"),
        ({"name": "x", "kind": "slack", "config": {"url": "nowhere"}}, "config"),
        ({"name": "x", "kind": "email", "config": {"to": "not an address"}}, "config"),
        ({"kind": "email", "config": {"to": "a@b.example"}}, "name"),
    ],
)
def test_what_is_wrong_with_a_channel_is_said_field_by_field(admin, body, field):
    assert field in admin("post", "channels/", body, 422)["errors"]


def test_pages_of_a_list_miss_and_repeat_nothing_while_rows_arrive(admin, acme):
    with in_schema(acme.schema_name):
        CloudGroup.objects.bulk_create(CloudGroup(name=f"g{number:03}") for number in range(25))
    page = admin("get", "cloud-groups/?size=10", status=200)
    with in_schema(acme.schema_name):
        CloudGroup.objects.create(name="arrived meanwhile")
    names = [row["name"] for row in page["results"]]
    while page["next"]:
        page = admin("get", page["next"].split("/api/v1/")[1], status=200)
        names += [row["name"] for row in page["results"]]
    assert names == [f"g{number:03}" for number in range(24, -1, -1)]


def test_servers_are_filtered_and_classified(admin, acme):
    nova, cinder = make_server("nova-1"), make_server("cinder-1", status="silent")
    group = CloudGroup.objects.create(name="Berlin")
    assert [row["host"] for row in admin("get", "servers/?status=silent")["results"]] == [
        cinder.host
    ]
    assert admin("get", "servers/?status=asleep", status=422)["errors"]["status"]
    changed = admin("patch", f"servers/{nova.pk}/", {"group": group.pk, "host": "other"}, 200)
    assert changed["group"] == group.pk
    assert changed["host"] == "nova-1", "what a server is called is its own to say"
    with in_schema(acme.schema_name):
        assert Server.objects.get(pk=nova.pk).group == group


def test_alerts_and_incidents_are_filtered(reader, acme):
    server, rule = make_server(), make_rule()
    read(rule, server, 90, NOON)
    for path in ("alerts/", "incidents/"):
        assert (
            len(reader("get", f"{path}?state=open&severity=warning&server={server.pk}")["results"])
            == 1
        )
        assert reader("get", f"{path}?state=resolved")["results"] == []
        assert reader("get", f"{path}?severity=awful", status=422)["errors"]["severity"]
        assert reader("get", f"{path}?server=x", status=422)["errors"]["server"]
    row = reader("get", "incidents/")["results"][0]
    assert row["alerts"][0]["host"] == "nova-1"
    assert row["events"][0]["kind"] == "opened"
    assert datetime.fromisoformat(row["opened_at"]) == NOON.astimezone(UTC)


def test_a_program_acknowledges_and_resolves(admin, acme):
    read(make_rule(), make_server(), 90, NOON)
    number = admin("get", "incidents/")["results"][0]["id"]
    taken = admin("post", f"incidents/{number}/acknowledge/", status=200)
    assert taken["acknowledged_at"]
    assert taken["acknowledged_by"] is None
    assert admin("post", f"incidents/{number}/resolve/", status=200)["resolved_at"]
    assert admin("post", f"incidents/{number}/resolve/", status=409)["type"].endswith("resolved")


def test_the_openapi_document_is_valid_and_covers_both_configurations(client):
    out, complaints = StringIO(), StringIO()
    call_command(
        "spectacular", validate=True, fail_on_warn=True, format="openapi-json",
        stdout=out, stderr=complaints,
    )  # fmt: skip
    document = json.loads(out.getvalue())
    assert "/api/v1/reports" in document["paths"]
    assert "/o/{organization}/api/v1/rules/{id}/" in document["paths"]
    assert client.get("/api/schema/").status_code == 200
    page = client.get("/api/docs/")
    assert b"<style" not in page.content
    assert b"<script>" not in page.content


def test_a_page_that_cannot_be_shown_says_so_and_leads_to_no_circle(alice, client):
    client.force_login(alice)
    path = "/o/acme/logs/?before=nonsense"
    for referer in ("", f"http://testserver{path}"):
        answer = client.get(path, headers={"Accept": "text/html", "Referer": referer})
        assert answer.status_code == 422
        assert b"cannot be continued" in answer.content


def test_a_log_search_without_a_find_tells_whether_something_was_asked_for(alice, client):
    client.force_login(alice)
    assert b"No log line in this time" in client.get("/o/acme/logs/").content
    assert b"No line matches" in client.get("/o/acme/logs/?q=burning").content


def test_a_refused_form_never_leads_to_another_host(acme, alice, client):
    client.force_login(alice)
    mine = alice.membership_set.get(tenant=acme).pk
    answer = client.post(
        f"/o/acme/settings/members/{mine}/remove/", headers={"Referer": "https://evil.example/"}
    )
    assert answer.status_code == 302
    assert answer["Location"] == f"/o/acme/settings/members/{mine}/remove/"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("servers/?host=%00", 200),
        ("servers/?cursor=cD1hYmM=", 404),
        ("servers/?cursor=cD0lMDA=", 404),
        ("alerts/?server=%C2%B2", 422),
    ],
)
def test_a_parameter_from_nowhere_is_answered_not_failed_on(admin, path, status):
    admin("get", path, status=status)


@pytest.mark.parametrize("name", ["\0", "\ud800"])
def test_names_are_held_to_what_texts_are(admin, name):
    rule = {"name": "Busy", "measurement": "cpu", "field": "percent", "thresholds": {"error": 1}}
    admin("post", "rules/", {**rule, "tags": {name: "x"}}, status=422)
    config = {"url": "https://example.org/", name: "x"}
    admin("post", "channels/", {"name": "Chat", "kind": "slack", "config": config}, status=422)


@pytest.mark.parametrize("field", ["target", "guard", "recovery", "window", "thresholds", "group"])
def test_a_number_of_hundreds_of_digits_is_not_taken(admin, field):
    number = int("9" * 400)
    given = {**RULE, field: {"warning": number} if field == "thresholds" else number}
    answer = admin("post", "rules/", given, status=400)
    assert "more than 300 digits" in answer["detail"]
    shorter = {**RULE, field: {"warning": 10**299} if field == "thresholds" else 10**299}
    if field not in ("thresholds", "target", "guard", "recovery"):
        assert field in admin("post", "rules/", shorter, status=422)["errors"]


def test_what_is_no_json_is_refused(admin):
    answer = admin.client.post(
        "/o/acme/api/v1/rules/",
        data=b'{"name": "\xff"',
        content_type="application/json",
        headers=admin.headers,
    )
    assert answer.status_code == 400
    assert "The body is not JSON" in answer.json()["detail"]
