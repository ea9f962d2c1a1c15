"""Maintenance and blackout on pages and through the API: the same verbs, rights and audit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import keys
from accounts.models import AuditEntry, Key, Membership, Role
from alerts.models import Alert
from clouds import servers, suppression
from clouds.models import CloudGroup, Recurrence, Server, Suppression
from clouds.suppression import Why
from sentinel_site.kit.tenancy import connection
from tests.alerts.builders import MINUTE, make_rule, make_server
from tests.alerts.test_breaches import read

NEW = "/o/acme/maintenance/new/"
LIST = "/o/acme/maintenance/"
API = "/o/acme/api/v1/suppressions/"
FORM = {
    "kind": "maintenance", "where": "all", "reason": "new switch", "begins": "", "ends": "3600",
    "until": "", "again": "", "rule": "", "zone": "Europe/Berlin",
}  # fmt: skip


@pytest.fixture
def group(acme):
    group = CloudGroup.objects.create(name="gru")
    for name in ("nova-1", "nova-2"):
        servers.classify(make_server(name), group, "", timezone.now())
    return group


@pytest.fixture
def signed_in(client, bob, acme):
    """Bob, a member; the test goes on in acme's schema after each request."""
    client.force_login(bob)

    def send(method, path, data=None, **more):
        answer = getattr(client, method)(path, data, **more)
        connection.set_schema(acme.schema_name)
        return answer

    return send


def as_json(send, method, path, **data):
    return send(method, path, data, content_type="application/json")


def test_a_group_is_put_into_maintenance_by_the_form(signed_in, group, bob):
    answer = signed_in("post", NEW, {**FORM, "where": f"group:{group.pk}"})
    assert answer.status_code == 302, answer.content
    row = Suppression.objects.get()
    assert (row.group, row.reason, row.by, row.kind) == (group, "new switch", bob.pk, "maintenance")
    assert row.until - row.since == timedelta(hours=1)
    assert set(Server.objects.values_list("status", flat=True)) == {"maintenance"}
    entry = AuditEntry.objects.get(verb="suppression.maintenance")
    assert (entry.subject, entry.user) == ("group gru", bob)


def test_the_list_says_what_is_on_what_comes_and_what_recurs(signed_in, group):
    day = f"{timezone.now() + timedelta(days=1):%Y-%m-%d}"
    signed_in("post", NEW, {**FORM, "reason": "now <b>"})
    signed_in("post", NEW, {**FORM, "reason": "tomorrow", "begins": f"{day}T02:30"})
    weekly = {"begins": f"{day}T04:00", "again": "FREQ=DAILY", "where": f"group:{group.pk}"}
    signed_in("post", NEW, {**FORM, **weekly, "reason": "every day", "kind": "blackout"})
    page = signed_in("get", LIST).content.decode()
    on, rest = page.split('id="planned"')
    coming, again = rest.split('id="recurring"')
    assert "now &lt;b&gt;" in on
    assert "tomorrow" in coming
    assert "every day at 04:00 (Europe/Berlin), for 1 h" in again
    assert "Bob" in on
    assert "2 servers muted" in page


def test_times_are_of_the_zone_that_the_form_names(signed_in, group):
    signed_in(
        "post", NEW,
        {**FORM, "begins": "2027-03-01T02:30", "ends": "at", "until": "2027-03-01T03:30"},
    )  # fmt: skip
    answer = signed_in(
        "post", NEW,
        {**FORM, "begins": "2027-03-01T02:30", "ends": "at", "until": "2027-03-01T02:30"},
    )  # fmt: skip
    assert answer.status_code == 422
    assert "It must end after it begins." in answer.content.decode()


def test_a_form_that_asks_for_nothing_sensible_says_where(signed_in, group):
    for wrong, said in (
        ({"ends": "at", "until": ""}, "Say when it ends."),
        ({"ends": "at", "until": "soon"}, "Write a time as"),
        ({"again": "FREQ=DAILY", "ends": "open"}, "must end by itself"),
        ({"again": "rule", "rule": "FREQ=NEVER"}, "It needs FREQ="),
        ({"again": "FREQ=DAILY", "ends": "at", "until": "2020-01-01T00:00"}, "Each must last"),
        ({"reason": " "}, "This field is required."),
        ({"zone": "Mars"}, "There is no such time zone"),
        ({"where": "server:987654321"}, "Select a valid choice"),
    ):
        answer = signed_in("post", NEW, {**FORM, **wrong})
        assert answer.status_code == 422, wrong
        assert said in answer.content.decode(), wrong
    assert not Suppression.objects.exists()


def test_what_recurs_is_made_changed_and_ended(signed_in, group):
    signed_in("post", NEW, {**FORM, "again": "FREQ=WEEKLY"})
    row = Recurrence.objects.get()
    assert (row.rule, row.zone, row.lasts) == ("FREQ=WEEKLY", "Europe/Berlin", timedelta(hours=1))
    page = f"{LIST}again/{row.pk}/"
    assert 'value="FREQ=WEEKLY" selected' in signed_in("get", page).content.decode()
    changed = {**FORM, "again": "rule", "rule": "FREQ=WEEKLY;INTERVAL=2", "ends": "7200"}
    assert signed_in("post", page, changed).status_code == 302
    row.refresh_from_db()
    assert (row.rule, row.lasts) == ("FREQ=WEEKLY;INTERVAL=2", timedelta(hours=2))
    assert signed_in("post", page + "end/").status_code == 302
    row.refresh_from_db()
    assert row.ended_at
    page = signed_in("get", LIST).content.decode()
    assert 'id="recurring"' not in page
    assert "new switch" in page, "the one that has begun goes on"


def test_what_is_on_is_changed_and_ended(signed_in, group):
    signed_in("post", NEW, FORM)
    row = Suppression.objects.get()
    page = f"{LIST}{row.pk}/"
    assert "new switch" in signed_in("get", page + "?zone=Asia/Kolkata").content.decode()
    answer = signed_in("post", page, {"reason": "longer", "ends": "open", "zone": "UTC"})
    assert answer.status_code == 302
    row.refresh_from_db()
    assert (row.reason, row.until) == ("longer", None)
    signed_in("post", page + "end/")
    row.refresh_from_db()
    assert row.ended_at
    assert AuditEntry.objects.filter(verb="suppression.ended", subject="all servers").exists()
    again = as_json(signed_in, "post", f"{API}{row.pk}/end/")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/over")


def test_the_servers_buttons_fill_the_form_in(signed_in, group):
    server = Server.objects.get(host="nova-1")
    page = signed_in("get", f"/o/acme/servers/{server.pk}/").content.decode()
    link = f"{NEW}?server={server.pk}&amp;kind=blackout"
    assert link in page
    form = signed_in("get", link.replace("&amp;", "&")).content.decode()
    assert f'value="server:{server.pk}" selected' in form
    signed_in("post", NEW, {**FORM, "where": f"server:{server.pk}", "kind": "blackout"})
    page = signed_in("get", f"/o/acme/servers/{server.pk}/").content.decode()
    assert "Blackout: new switch" in page
    assert "End now" in page


def test_the_banner_counts_on_every_page_what_nobody_is_told(signed_in, group):
    assert "muted," not in signed_in("get", "/o/acme/rules/").content.decode()
    suppression.black_out(group, Why("disk", by=1), timezone.now() - MINUTE, None)
    read(make_rule(), Server.objects.get(host="nova-1"), 90, timezone.now())
    assert Alert.objects.get().suppressed == "blackout"
    for path in ("rules/", "", "servers/", "maintenance/?fragment=banner"):
        page = signed_in("get", f"/o/acme/{path}").content.decode()
        assert "2 servers muted, 1 alert untold." in page, path


def test_viewers_see_and_members_suppress(signed_in, client, group, acme, bob):
    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.VIEWER)
    assert signed_in("get", LIST).status_code == 200
    assert signed_in("get", NEW).status_code == 403
    assert signed_in("post", NEW, FORM).status_code == 403
    assert as_json(signed_in, "post", API, kind="blackout", reason="x").status_code == 403
    assert signed_in("get", API).status_code == 200


# -- the API ------------------------------------------------------------------


def test_programs_suppress_change_and_end(client, group, acme):
    _, key = keys.issue(acme, Key.Scope.ADMIN, name="ansible")
    bearer = {"headers": {"Authorization": f"Bearer {key}"}, "content_type": "application/json"}
    until = timezone.now() + timedelta(hours=1)
    made = client.post(
        API, {"kind": "blackout", "reason": "x", "group": group.pk, "until": until}, **bearer
    )
    assert made.status_code == 201, made.json()
    row = made.json()
    assert (row["state"], row["group"], row["server"], row["by"]) == ("on", group.pk, None, None)
    path = f"{API}{row['id']}/"
    changed = client.patch(path, {"until": None, "reason": "y"}, **bearer).json()
    assert (changed["until"], changed["reason"]) == (None, "y")
    [listed] = client.get(API + "?state=on", **bearer).json()["results"]
    assert listed["id"] == row["id"]
    assert client.post(path + "end/", **bearer).status_code == 204
    assert client.post(path + "end/", **bearer).json()["type"] == "/problems/over"
    assert client.get(API + "?state=on", **bearer).json()["results"] == []
    assert client.get(API + "?state=over", **bearer).json()["results"][0]["id"] == row["id"]
    connection.set_schema(acme.schema_name)
    assert AuditEntry.objects.filter(verb="suppression.changed", key__isnull=False).exists()


def test_programs_plan_and_repeat(signed_in, group):
    begins = (timezone.now() + timedelta(days=1)).replace(microsecond=0)
    made = as_json(
        signed_in, "post", API, kind="maintenance", reason="x", since=begins.isoformat()
    ).json()
    assert made["state"] == "coming"
    path = "/o/acme/api/v1/recurrences/"
    again = {
        "kind": "maintenance", "reason": "backup", "rule": "FREQ=DAILY", "zone": "Europe/Berlin",
        "begins": begins.isoformat(), "lasts": 1800,
    }  # fmt: skip
    row = as_json(signed_in, "post", path, **again)
    assert row.status_code == 201, row.json()
    assert (row.json()["lasts"], len(row.json()["next"])) == (1800, 3)
    one = f"{path}{row.json()['id']}/"
    assert as_json(signed_in, "patch", one, lasts=60).json()["lasts"] == 60
    wrong = as_json(signed_in, "patch", one, rule="FREQ=NEVER")
    assert (wrong.status_code, wrong.json()["type"]) == (422, "/problems/not-a-span")
    assert as_json(signed_in, "patch", one, lasts=1e300).status_code == 422
    assert signed_in("post", one + "end/").status_code == 204


def test_bad_input_is_named(signed_in, group):
    server = Server.objects.first()
    for wrong, field in (
        ({"kind": "holiday"}, "kind"),
        ({"server": server.pk, "group": group.pk}, "group"),
        ({"server": 987654321}, "server"),
        ({"until": "soon"}, "until"),
        ({"reason": ""}, "reason"),
    ):
        answer = as_json(signed_in, "post", API, **{"kind": "blackout", "reason": "x", **wrong})
        assert answer.status_code == 422, wrong
        assert field in answer.json()["errors"], wrong
    assert signed_in("get", API + "?state=x").status_code == 422
    assert signed_in("get", API + "?server=x").status_code == 422


# -- group and role, removal ----------------------------------------------------


def test_a_server_is_classified_by_page_and_api(signed_in, group):
    server = make_server("db-1")
    page = f"/o/acme/servers/{server.pk}/classify/"
    assert signed_in("get", page).status_code == 200
    assert signed_in("post", page, {"group": group.pk, "role": "database"}).status_code == 302
    server.refresh_from_db()
    assert (server.group, server.role) == (group, "database")
    path = f"/o/acme/api/v1/servers/{server.pk}/"
    answer = as_json(signed_in, "patch", path, group=None)
    assert (answer.json()["group"], answer.json()["role"]) == (None, "database")
    assert AuditEntry.objects.filter(verb="server.classified").count() == 2


def test_removal_needs_maintenance_and_ten_minutes_of_silence(client, alice, acme, monkeypatch):
    now = timezone.now()
    server = make_server("nova-1", registered_at=now - 3 * MINUTE)
    client.force_login(alice)
    path = f"/o/acme/api/v1/servers/{server.pk}/remove/"

    def remove():
        answer = client.post(path)
        connection.set_schema(acme.schema_name)
        return answer

    assert remove().json()["type"] == "/problems/not-in-maintenance"
    suppression.start_maintenance(server, Why("gone", by=1), now - MINUTE, None)
    refused = remove()
    assert refused.status_code == 409
    assert 400 < refused.json()["seconds"] <= 420
    assert int(refused.headers["Retry-After"]) == refused.json()["seconds"]
    assert "nova-1 can be removed in " in refused.json()["detail"]
    page = client.get(f"/o/acme/servers/{server.pk}/classify/?fragment=removal").content.decode()
    connection.set_schema(acme.schema_name)
    assert "data-until" in page
    assert "disabled" in page
    Server.objects.update(registered_at=now - 11 * MINUTE)
    assert remove().status_code == 204
    server.refresh_from_db()
    assert (server.status, server.retired_at is not None) == ("retired", True)
    assert not Suppression.objects.filter(ended_at=None).exists()
    assert AuditEntry.objects.filter(verb="server.removed", subject="nova-1").exists()
    assert remove().json()["type"] == "/problems/retired"
    assert "nova-1" not in client.get("/o/acme/servers/?fragment=list").content.decode()


def test_who_was_removed_and_reports_again_begins_anew(acme):
    now = timezone.now()
    server = make_server("nova-1", status="retired", retired_at=now - MINUTE)
    again = servers.register(server.agent_id, "nova-1", now)
    again.refresh_from_db()
    assert (again.pk, again.status, again.registered_at) == (server.pk, "up", now)


def test_members_classify_and_only_admins_remove(signed_in, group):
    server = Server.objects.first()
    assert signed_in("post", f"/o/acme/servers/{server.pk}/remove/").status_code == 403
    path = f"/o/acme/api/v1/servers/{server.pk}/remove/"
    assert signed_in("post", path).status_code == 403
