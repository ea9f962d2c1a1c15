"""Jobs that are expected: they ping, come late, fail, are paused; our outage accuses none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.test.utils import CaptureQueriesContext

from accounts.access import Access
from accounts.models import AuditEntry, Membership, Role
from alerts.engines.evaluation import evaluate
from alerts.jobs import checkins
from alerts.jobs.checkins import Ping
from alerts.models import Alert, CheckIn, Notification
from alerts.values.schedules import Schedule
from metrics import outages
from sentinel_site.kit.tenancy import connection, in_schema
from tests.alerts.builders import MINUTE, NOON, looked_at, make_server

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def make(name: str = "backup", **more) -> CheckIn:
    more.setdefault("period", HOUR)
    row = CheckIn(name=name, grace=10 * MINUTE, **more)
    row.full_clean()
    row.save()
    return row


def ping(row: CheckIn, at: datetime, kind: Ping = Ping.SUCCESS, **more) -> CheckIn:
    assert checkins.note(row.secret, kind, at, **more)
    row.refresh_from_db()
    return row


def look(row: CheckIn, at: datetime) -> str:
    checkins.judge(at, None)
    row.refresh_from_db()
    return row.state_at(at)


def test_one_that_comes_in_time_is_up(acme):
    row = make()
    assert row.state_at(NOON) == "new"
    ping(row, NOON)
    assert look(row, NOON + HOUR) == "up"
    assert look(row, NOON + HOUR + MINUTE) == "late"
    ping(row, NOON + HOUR + 2 * MINUTE)
    assert look(row, NOON + HOUR + 12 * MINUTE) == "up"
    assert not Alert.objects.exists()


def test_one_that_does_not_come_in_time_raises_an_alert_and_ends_it_when_it_comes(acme):
    server = make_server("db-1")
    row = ping(make(server=server, severity="critical", advice="Look at the disk."), NOON)
    assert look(row, NOON + HOUR + 10 * MINUTE) == "down"
    alert = Alert.objects.get()
    assert (alert.server, alert.service, alert.severity) == (server, "backup", "critical")
    assert (alert.title, alert.advice) == ("backup did not run", "Look at the disk.")
    assert "was expected by 2026-03-01 13:00 UTC; it last came 70 min ago." in (
        alert.incident.event_set.get().text
    )
    look(row, NOON + 2 * HOUR)
    assert Alert.objects.count() == 1
    ping(row, NOON + 3 * HOUR)
    alert.refresh_from_db()
    assert alert.resolved_at == NOON + 3 * HOUR
    assert [one.transition.partition(":")[0] for one in Notification.objects.order_by("pk")] == [
        "opened", "resolved",
    ]  # fmt: skip


def test_one_that_runs_on_no_server_of_ours_is_named_by_itself(acme):
    row = ping(make("offsite copy"), NOON)
    look(row, NOON + 2 * HOUR)
    assert Alert.objects.get().host == "offsite copy"


def test_one_that_never_came_is_not_expected_yet(acme):
    row = make()
    assert look(row, NOON + 30 * DAY) == "new"


def test_a_run_that_says_it_starts_must_end_within_the_grace(acme):
    row = ping(make(), NOON)
    ping(row, NOON + HOUR, Ping.START)
    assert look(row, NOON + HOUR + 9 * MINUTE) != "down"
    assert look(row, NOON + HOUR + 10 * MINUTE) == "down"
    assert (
        "began at 13:00 UTC and has not ended" in Alert.objects.get().incident.event_set.get().text
    )
    ping(row, NOON + HOUR + 12 * MINUTE)
    assert row.took == 12 * MINUTE
    assert row.state == "up"


def test_a_failure_is_told_at_once_with_the_end_of_what_it_said(acme):
    row = ping(make(), NOON)
    ping(row, NOON + MINUTE, Ping.FAIL, exit_code=2, body=b"copied 3 files\nno space left\n")
    text = Alert.objects.get().incident.event_set.get().text
    assert text == "backup says that it failed with exit code 2: no space left"
    assert Alert.objects.get().title == "backup failed"
    ping(row, NOON + 2 * MINUTE)
    assert Alert.objects.get().resolved_at


def test_one_that_is_paused_is_not_expected_until_it_comes_again(acme, alice):
    from accounts.access import Access

    access = Access(acme, Role.OWNER, alice)
    row = ping(make(), NOON)
    look(row, NOON + 2 * HOUR)
    checkins.pause(access, row, NOON + 3 * HOUR)
    assert Alert.objects.get().resolved_at
    assert look(row, NOON + DAY) == "paused"
    ping(row, NOON + DAY)
    assert look(row, NOON + DAY) == "up"
    checkins.delete(access, row, NOON + DAY)
    assert not CheckIn.objects.exists()


def test_what_it_sends_is_kept_up_to_a_bound(acme):
    row = ping(make(), NOON, body=b"x" * 20_000 + b"end\0\xff")
    assert len(row.body) == 10_000
    assert row.body.endswith("end��")


def test_the_evaluation_judges_when_the_deadline_comes(acme, monkeypatch):
    row = ping(make(), NOON)
    assert checkins.next_deadline(NOON) == NOON + HOUR + 10 * MINUTE
    assert looked_at(acme) <= row.deadline_at
    monkeypatch.setattr("alerts.engines.fleet.listening_since", lambda at: None)
    evaluate(NOON + HOUR + 10 * MINUTE)
    row.refresh_from_db()
    assert row.state == "down"


# -- our own outages ------------------------------------------------------------


def test_while_nobody_listens_nobody_is_accused(acme):
    row = ping(make(), NOON)
    checkins.judge(NOON + DAY, NOON + DAY)
    row.refresh_from_db()
    assert row.state == "up"


def test_what_was_due_while_nobody_listened_is_looked_at_again_soon(acme):
    row = ping(make(), NOON)
    late = row.deadline_at + MINUTE
    checkins.judge(late, late)
    assert checkins.next_deadline(late, late) == late + MINUTE
    assert checkins.next_deadline(late, None) is None, "what is judged waits for nothing"


def test_what_was_due_in_our_outage_has_until_its_schedule_says_so_again(acme):
    row = ping(make(period=None, cron="0 13 * * *"), NOON)
    outages.note(NOON + 50 * MINUTE, NOON + 65 * MINUTE)
    assert look(row, NOON + HOUR + 10 * MINUTE) == "up"
    assert row.due_at == NOON + DAY + HOUR
    assert look(row, NOON + DAY + HOUR + 10 * MINUTE) == "down"
    assert Alert.objects.count() == 1


def test_an_outage_at_another_time_is_no_excuse(acme):
    row = ping(make(period=None, cron="0 18 * * *"), NOON)
    outages.note(NOON + HOUR, NOON + 2 * HOUR)
    assert look(row, NOON + 6 * HOUR + 10 * MINUTE) == "down"


# -- schedules ------------------------------------------------------------------


def test_a_cron_expression_is_of_its_time_zone_also_when_clocks_change():
    berlin = ZoneInfo("Europe/Berlin")
    schedule = Schedule(None, "30 2 * * *", "Europe/Berlin", MINUTE)
    at, found = datetime(2026, 3, 27, 12, tzinfo=UTC), []
    for _ in range(4):
        at = schedule.due_after(at)
        found.append(f"{at.astimezone(berlin):%m-%d %H:%M}")
    assert found == ["03-28 02:30", "03-29 03:00", "03-30 02:30", "03-31 02:30"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"period": None},
        {"period": HOUR, "cron": "* * * * *"},
        {"period": timedelta(seconds=1)},
        {"period": 400 * DAY},
        {"period": None, "cron": "61 * * * *"},
        {"period": None, "cron": "0 0 30 2 *"},
        {"period": None, "cron": "tomorrow"},
        {"period": None, "cron": "0 * * * *", "zone": "Mars"},
    ],
)
def test_what_is_no_schedule_is_refused(acme, wrong):
    with pytest.raises(ValidationError):
        make(**wrong)


# -- the address, pages, API ------------------------------------------------------


@pytest.fixture
def path(acme):
    row = make()
    return f"/ping/{acme.pk}-{row.secret}"


@pytest.mark.parametrize("method", ["get", "head", "post"])
def test_a_job_calls_an_address(client, path, acme, method):
    answer = getattr(client, method)(path)
    assert answer.status_code == 200
    with in_schema(acme.schema_name):
        assert CheckIn.objects.get().state == "up"


def test_it_says_start_fail_and_its_exit_code(client, path, acme):
    def state():
        with in_schema(acme.schema_name):
            return CheckIn.objects.get()

    client.get(path + "/start")
    assert state().began_at
    client.post(path + "/0", b"all fine", content_type="text/plain")
    assert (state().state, state().exit_code, state().body) == ("up", 0, "all fine")
    client.post(path + "/3", b"broken", content_type="text/plain")
    assert (state().state, state().exit_code) == ("down", 3)
    client.get(path)
    assert (state().state, state().exit_code) == ("up", None)
    client.get(path + "/fail")
    assert state().state == "down"


def test_an_address_that_is_none_says_so(client, path, acme, globex):
    secret = path.partition("-")[2]
    for wrong in (f"/ping/{globex.pk}-{secret}", path + "x", "/ping/999999999-x", path + "/stop"):
        assert client.get(wrong).status_code == 404, wrong
    assert client.put(path).status_code == 405
    with in_schema(acme.schema_name):
        assert CheckIn.objects.get().state == "new"


FORM = {
    "name": "backup", "server": "", "period": "1 d", "cron": "", "zone": "UTC", "grace": "10 min",
    "severity": "error", "advice": "",
}  # fmt: skip


@pytest.mark.django_db(transaction=True)  # as requests are: no transaction but their own
def test_members_make_change_pause_and_delete_them(client, bob, acme):
    client.force_login(bob)
    made = client.post("/o/acme/check-ins/new/", FORM)
    assert made.status_code == 302, made.content.decode()
    page = client.get(made.url).content.decode()
    connection.set_schema(acme.schema_name)
    row = CheckIn.objects.get()
    assert f"/ping/{acme.pk}-{row.secret}" in page
    assert row.period == DAY
    wrong = client.post(made.url, {**FORM, "cron": "x"})
    assert wrong.status_code == 422
    assert client.post(made.url, {**FORM, "period": "", "cron": "0 2  * * *"}).status_code == 302
    assert "0 2 * * *" in client.get("/o/acme/check-ins/").content.decode()
    assert client.post(made.url + "pause/").status_code == 302
    assert "Paused" in client.get("/o/acme/check-ins/?fragment=list").content.decode()
    assert client.post(made.url + "delete/").status_code == 302
    connection.set_schema(acme.schema_name)
    assert not CheckIn.objects.exists()
    verbs = set(AuditEntry.objects.values_list("verb", flat=True))
    assert {"checkin.added", "checkin.changed", "checkin.paused", "checkin.deleted"} <= verbs


def test_programs_do_the_same_and_viewers_see_no_address(client, bob, acme):
    client.force_login(bob)
    api = "/o/acme/api/v1/check-ins/"
    sent = {"name": "sync", "cron": "*/5 * * * *", "zone": "Europe/Berlin", "grace": 120}
    made = client.post(api, sent, content_type="application/json")
    assert made.status_code == 201, made.json()
    row = made.json()
    assert (row["state"], row["grace"], row["period"]) == ("new", 120, None)
    assert client.get(row["url"].partition("8000")[2] or row["url"]).status_code == 200
    one = f"{api}{row['id']}/"
    assert client.get(one).json()["state"] == "up"
    assert client.post(one + "pause/").json()["state"] == "paused"
    wrong = client.patch(one, {"period": 60}, content_type="application/json")
    assert (wrong.status_code, list(wrong.json()["errors"])) == (422, ["period"])
    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.VIEWER)
    assert client.get(one).json()["url"] is None
    assert client.delete(one).status_code == 403


def test_a_ping_that_came_in_while_somebody_filled_the_form_is_kept(acme, alice):
    row = make()
    shown = CheckIn.objects.get(pk=row.pk)
    ping(row, NOON, body=b"all 7 copied")
    shown.advice = "Look at the disk."
    saved = checkins.save(Access(acme, Role.OWNER, alice), shown, NOON + MINUTE)
    assert (saved.state, saved.came_at, saved.body) == ("up", NOON, "all 7 copied")
    assert CheckIn.objects.get().advice == "Look at the disk."


def test_a_name_that_somebody_else_took_meanwhile_is_refused(acme, alice):
    access = Access(acme, Role.OWNER, alice)
    checkins.save(access, CheckIn(name="backup", period=HOUR), NOON)
    with pytest.raises(checkins.NameTaken):
        checkins.save(access, CheckIn(name="backup", period=HOUR), NOON)


def test_what_somebody_deleted_meanwhile_is_neither_saved_nor_paused(acme, alice):
    access, row = Access(acme, Role.OWNER, alice), make()
    shown = CheckIn.objects.get(pk=row.pk)
    checkins.delete(access, row, NOON)
    for verb in (checkins.save, checkins.pause, checkins.delete):
        with pytest.raises(checkins.NoSuchCheckIn):
            verb(access, shown, NOON)
    assert not CheckIn.objects.exists()


def _asked(client, path: str) -> tuple[int, str]:
    with in_schema("public"), CaptureQueriesContext(connection) as caught:
        answer = client.get(path)
    return answer.status_code, "".join(one["sql"] for one in caught)


def test_who_makes_a_secret_up_waits_for_nobody_and_a_job_not_for_long(acme, client):
    row = make()
    status, said = _asked(client, f"/ping/{acme.pk}-made-up")
    assert status == 404
    assert "advisory" not in said
    status, said = _asked(client, f"/ping/{acme.pk}-{row.secret}")
    assert status == 200
    assert -1 < said.find("lock_timeout") < said.find("advisory")


def test_what_people_decide_is_one_transaction(acme, alice):
    access, row = Access(acme, Role.OWNER, alice), make()
    for verb in (checkins.save, checkins.pause, checkins.delete):
        with CaptureQueriesContext(connection) as caught:
            verb(access, row, NOON)
        assert caught[0]["sql"].startswith("SAVEPOINT"), verb
