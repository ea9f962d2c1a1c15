"""Uptime from what happened: silences, late reports, outages; the same on page, API and CSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.utils import timezone

from alerts import uptimes
from alerts.engines import fleet
from alerts.uptimes import NotAPeriod
from clouds import history, servers, services, suppression
from clouds.history import LateReport
from clouds.models import CloudGroup, LateReports, Server, ServiceSpan, Silence
from clouds.suppression import Why
from clouds.uptime import Span
from metrics import ingest, outages
from metrics.batch import Batch, Report, State
from metrics.models import Outage
from sentinel_site.kit import listening
from sentinel_site.kit.redis_client import client as valkey
from sentinel_site.kit.tenancy import connection
from tests.alerts.builders import MINUTE, NOON, SECOND, make_server

WHY = Why("new switch", by=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def uptime(server: Server, start: datetime, end: datetime, now: datetime | None = None):
    past = history.of_servers([server], start, now or end, [])[server.pk]
    return past.uptime(Span(start, end))


def hear(server: Server, at: datetime | None, now: datetime) -> None:
    """An evaluation at `now`, when the last report came in at `at`."""
    servers.note_silence({server.pk: at or server.registered_at}, now)


# -- what is written ------------------------------------------------------------


def test_a_silence_counts_from_the_end_of_patience_to_the_next_report(acme):
    server = make_server()  # every 10 s: silent after 60 s
    hear(server, NOON, NOON + 30 * SECOND)
    assert not Silence.objects.exists()
    hear(server, NOON, NOON + 65 * SECOND)
    hear(server, NOON, NOON + 70 * SECOND)
    hear(server, NOON + 11 * MINUTE, NOON + 11 * MINUTE + SECOND)
    row = Silence.objects.get()
    assert (row.since, row.until) == (NOON + MINUTE, NOON + 11 * MINUTE)
    assert uptime(server, NOON, NOON + 100 * MINUTE).percent == pytest.approx(90)


def test_in_a_blackout_silence_is_noted_and_counts_and_in_maintenance_it_does_not(acme):
    for kind, percent in (("blackout", 90), ("maintenance", 100)):
        server = make_server(kind)
        start = {"blackout": suppression.black_out, "maintenance": suppression.start_maintenance}
        start[kind](server, WHY, NOON, NOON + 50 * MINUTE)
        hear(server, NOON, NOON + 2 * MINUTE)
        server.refresh_from_db()
        assert server.status == kind
        hear(server, NOON + 11 * MINUTE, NOON + 11 * MINUTE)
        assert uptime(server, NOON, NOON + 100 * MINUTE).percent == pytest.approx(percent)


def test_the_evaluation_sees_a_silence_in_a_blackout(acme):
    server = make_server()
    suppression.black_out(server, WHY, NOON, None)
    found = fleet.read(acme.pk, NOON)
    assert (found.overdue > 0).all()
    assert not found.silent.any()
    hear(server, None, NOON)
    assert fleet.read(acme.pk, NOON).silent.all()


def test_of_the_group_only_the_time_that_a_server_was_in_it_is_suppressed_and_counts(acme):
    group = CloudGroup.objects.create(name="gru")
    server = make_server(registered_at=NOON)
    suppression.start_maintenance(group, WHY, NOON, NOON + 4 * HOUR)
    servers.classify(server, group, "", NOON + HOUR)
    servers.classify(server, None, "", NOON + 2 * HOUR)
    hear(server, NOON + 3 * HOUR - MINUTE, NOON + 4 * HOUR)
    now = NOON + 5 * HOUR
    found = uptime(server, NOON, now)
    assert (found.maintenance, found.counted, found.down) == (HOUR, 4 * HOUR, 2 * HOUR)
    pasts = history.of_servers([server], NOON, now, [])
    [there] = history.of_groups(pasts, now)[group.pk]
    assert there.uptime(Span(NOON, now)).counted == timedelta()
    assert there.uptime(Span(NOON, now)).maintenance == HOUR


def test_what_a_deleted_group_was_suppressed_for_stays_uncounted(acme):
    group = CloudGroup.objects.create(name="gru")
    server = make_server(registered_at=NOON)
    servers.classify(server, group, "", NOON)
    suppression.start_maintenance(group, WHY, NOON + HOUR, NOON + 2 * HOUR)
    before = uptime(server, NOON, NOON + 4 * HOUR)
    suppression.remove_group(group, NOON + 3 * HOUR)
    assert uptime(server, NOON, NOON + 4 * HOUR) == before
    assert before.maintenance == HOUR


def test_a_maintenance_that_was_planned_and_called_off_takes_nothing(acme):
    server = make_server()
    row = suppression.suppress(
        server, suppression.SuppressionKind.MAINTENANCE, WHY, NOON, None, since=NOON + HOUR
    )
    suppression.end_one(row, NOON + MINUTE)
    assert uptime(server, NOON, NOON + 4 * HOUR).maintenance == timedelta()


def test_uptime_does_not_wait_for_an_evaluation_to_end_a_maintenance(acme):
    server = make_server()
    suppression.start_maintenance(server, WHY, NOON, NOON + HOUR)
    assert uptime(server, NOON, NOON + 4 * HOUR).maintenance == HOUR


@pytest.mark.parametrize(
    ("reason", "grace", "down"),
    [
        ("update to 2.1.0", 10 * MINUTE, timedelta()),
        ("the host shuts down", 15 * MINUTE, 8 * MINUTE),
        ("SIGTERM", 2 * MINUTE, 8 * MINUTE),
        ("", timedelta(), 8 * MINUTE),
    ],
)
def test_a_goodbye_gives_time_by_its_reason_and_uptime_counts_the_silence(
    acme, reason, grace, down
):
    server = make_server()  # silent after 60 s
    servers.note_goodbye(server, reason, NOON)
    hear(server, NOON, NOON + MINUTE + grace)
    server.refresh_from_db()
    assert server.status == "up"
    assert server.silent_after == MINUTE + grace
    found = fleet.read(acme.pk, NOON)
    assert found.silent_after.tolist() == [server.silent_after.total_seconds()]
    back = NOON + 9 * MINUTE
    if grace < 8 * MINUTE:
        hear(server, NOON, NOON + MINUTE + grace + SECOND)
        server.refresh_from_db()
        assert server.status == "silent", "who does not come back is told after all"
    servers.note_goodbye(server, "", back)
    hear(server, back, back)
    assert uptime(server, NOON, NOON + HOUR).down == down


# -- late -----------------------------------------------------------------------


def send(tenant, server, times, now, state="up"):
    """Its reports of these times come in now."""
    made = [
        Report(
            number=number, host=server.host, agent=server.agent_id, at=at,
            interval=timedelta(seconds=10), epoch="e", sequence=int((at - NOON) / SECOND) + 1,
            services=[State("nova-api", "nova", state, 1, "")],
        )
        for number, at in enumerate(times)
    ]  # fmt: skip
    answer = ingest.accept(tenant, Batch(now, made))
    assert answer.accepted + answer.duplicates == len(made)


def test_an_agent_that_delivers_later_what_it_could_not_send_was_up(acme):
    """Its network was away for twenty minutes: the newest comes first, then the oldest."""
    start = NOON
    server = make_server(registered_at=start)
    send(acme, server, [start], start + SECOND)
    hear(server, start + SECOND, start + 2 * MINUTE)
    back = start + 20 * MINUTE
    assert uptime(server, start, back).percent < 10
    send(acme, server, [back], back + SECOND)
    hear(server, back + SECOND, back + SECOND)
    assert uptime(server, start, back).percent < 10
    times = [start + number * 10 * SECOND for number in range(1, 120)]
    send(acme, server, times[:60], back + 2 * SECOND)
    send(acme, server, times[60:], back + 3 * SECOND)
    assert uptime(server, start, back).percent == 100
    assert LateReports.objects.count() == 1, "what touches is one"
    send(acme, server, times[:60], back + 5 * SECOND)
    assert uptime(server, start, back).percent == 100


def test_reports_that_come_in_time_write_nothing(acme):
    server = make_server(registered_at=NOON)
    send(acme, server, [NOON + 5 * SECOND], NOON + 10 * SECOND)
    assert not LateReports.objects.exists()


def test_what_late_reports_say_of_services_was_so_then(acme):
    server = make_server(registered_at=NOON)
    up = [State("nova-api", "nova", "up", 1, "")]
    services.note_states(server, up, NOON)
    services.note_states(server, up, NOON + HOUR)
    late = [
        LateReport(NOON + 20 * MINUTE + number * 10 * SECOND, {"nova-api": "down"})
        for number in range(60)
    ]
    history.note_late(server.pk, late, server.silent_after, server.interval)
    history.note_late(server.pk, late, server.silent_after, server.interval)
    spans = ServiceSpan.objects.order_by("since").values_list("state", "since", "until")
    assert list(spans) == [
        ("up", NOON, NOON + 20 * MINUTE),
        ("down", NOON + 20 * MINUTE, NOON + 30 * MINUTE),
        ("up", NOON + 30 * MINUTE, None),
    ]
    past = history.of_servers([server], NOON, NOON + HOUR, [])[server.pk]
    found = history.of_services(server, past, NOON, NOON + HOUR)["nova-api"]
    assert found.uptime(Span(NOON, NOON + HOUR)).down == 10 * MINUTE


# -- services -------------------------------------------------------------------


@dataclass
class Said:
    name: str
    state: str
    project: str = "nova"
    workers: int = 1
    detail: str = ""


def of_service(server, name, end):
    past = history.of_servers([server], NOON, end, [])[server.pk]
    found = history.of_services(server, past, NOON, end)
    return found[name].uptime(Span(NOON, end)) if name in found else None


def test_a_service_is_up_while_its_server_is_heard_and_says_so(acme):
    server = make_server(registered_at=NOON)
    services.note_states(server, [Said("nova-api", "up")], NOON)
    services.note_states(server, [Said("nova-api", "down")], NOON + 10 * MINUTE)
    services.note_states(server, [Said("nova-api", "up")], NOON + 20 * MINUTE)
    hear(server, NOON + 29 * MINUTE, NOON + 35 * MINUTE)
    hear(server, NOON + 40 * MINUTE, NOON + 40 * MINUTE)
    found = of_service(server, "nova-api", NOON + 100 * MINUTE)
    assert found.down == 20 * MINUTE
    assert found.counted == 100 * MINUTE


def test_a_service_counts_from_when_it_first_ran_and_one_that_never_ran_has_no_uptime(acme):
    server = make_server(registered_at=NOON)
    services.note_states(server, [Said("nova-api", "down"), Said("swift", "down")], NOON)
    services.note_states(
        server, [Said("nova-api", "up"), Said("swift", "down")], NOON + 10 * MINUTE
    )
    found = of_service(server, "nova-api", NOON + 20 * MINUTE)
    assert (found.percent, found.counted) == (100, 10 * MINUTE)
    assert of_service(server, "swift", NOON + 20 * MINUTE) is None


def test_what_its_agent_did_not_watch_is_not_counted(acme):
    server = make_server(registered_at=NOON)
    both = [Said("nova-api", "up"), Said("nova-conductor", "up")]
    services.note_states(server, both, NOON)
    services.note_states(server, both[:1], NOON + 10 * MINUTE)
    services.note_states(server, both, NOON + 30 * MINUTE)
    found = of_service(server, "nova-conductor", NOON + 40 * MINUTE)
    assert (found.percent, found.counted) == (100, 20 * MINUTE)


# -- our own outages ------------------------------------------------------------


def test_our_own_outage_is_noted_once_and_is_nobodys_downtime(acme, settings, mailoutbox):
    settings.OPERATOR_EMAIL = ["op@example.org"]
    assert outages.note(NOON, NOON + 10 * MINUTE)
    assert not outages.note(NOON, NOON + 11 * MINUTE), "another process was quicker"
    [mail] = mailoutbox
    assert (mail.to, mail.subject) == (["op@example.org"], "Sentinella did not listen for 10 min")
    server = make_server(registered_at=NOON)
    hear(server, NOON, NOON + 11 * MINUTE)
    hear(server, NOON + 11 * MINUTE, NOON + 11 * MINUTE)
    spans = [Span(*pair) for pair in outages.between(NOON, NOON + HOUR)]
    past = history.of_servers([server], NOON, NOON + HOUR, spans)[server.pk]
    assert past.uptime(Span(NOON, NOON + HOUR)).down == MINUTE
    outages.forget(NOON + 2 * HOUR)
    assert not Outage.objects.exists()


def test_a_restart_is_kept_and_told_to_nobody(acme, settings, mailoutbox):
    settings.OPERATOR_EMAIL = ["op@example.org"]
    outages.note(NOON, NOON + 30 * SECOND)
    assert not mailoutbox
    assert outages.last().since == NOON


def test_an_outage_is_known_though_redis_was_started_anew_with_us(db):
    for second in range(0, 60, 5):
        outages.mark(NOON + second * SECOND)
    assert not Outage.objects.exists()
    outages.mark(NOON + 10 * MINUTE)
    assert outages.between(NOON, NOON + HOUR) == [(NOON + 45 * SECOND, NOON + 10 * MINUTE)]
    outages.note(NOON + 20 * MINUTE, NOON + 30 * MINUTE)
    outages.mark(NOON + 30 * MINUTE)
    assert Outage.objects.count() == 2, "what Redis knew is not noted twice"


def test_who_listens_again_knows_since_when_nobody_did():
    valkey().delete(listening._KEY)
    assert listening.note(NOON) is None
    assert listening.note(NOON + 5 * SECOND) is None
    over = listening.note(NOON + 5 * MINUTE)
    assert over is not None
    assert over.said_at == NOON + 5 * SECOND
    assert listening.note(NOON + 5 * MINUTE + SECOND) is None
    valkey().delete(listening._KEY)


def test_while_redis_is_away_we_listen_and_its_return_is_no_outage(monkeypatch):
    def away(*args):
        raise redis.ConnectionError("refused")

    valkey().delete(listening._KEY)
    assert listening._missed(NOON, None) is None
    with monkeypatch.context() as patched:
        patched.setattr(listening, "note", away)
        assert listening._missed(NOON + MINUTE, NOON + 55 * SECOND) is None
    assert listening._missed(NOON + 2 * MINUTE, NOON + 115 * SECOND) is None
    started = listening._missed(NOON + 4 * MINUTE, None)
    assert started == (NOON + 2 * MINUTE, NOON + 4 * MINUTE), "another process knows nothing of it"
    valkey().delete(listening._KEY)


# -- pages, API, CSV ------------------------------------------------------------


@pytest.fixture
def told(client, bob, acme):
    """Three servers with a past of ten days; Bob looks at it."""
    now = timezone.now()
    group = CloudGroup.objects.create(name="gru")
    first = now - 10 * DAY
    for number, name in enumerate(("nova-1", "nova-2", "=db")):
        server = make_server(name, registered_at=first + number * DAY)
        if number < 2:
            servers.classify(server, group, "", first + number * DAY)
        Silence.objects.create(
            server=server, since=now - 5 * DAY, until=now - 5 * DAY + (number + 1) * HOUR
        )
        services.note_states(server, [Said("nova-api", "up")], first + number * DAY)
    suppression.suppress(
        group, suppression.SuppressionKind.MAINTENANCE, WHY, now - 6 * DAY, now - 6 * DAY + 3 * HOUR
    )
    client.force_login(bob)

    def get(path):
        answer = client.get(f"/o/acme/{path}")
        connection.set_schema(acme.schema_name)
        assert answer.status_code == 200, answer.content
        return answer

    return get


def test_the_numbers_of_page_api_and_csv_are_the_same(told):
    for query in ("window=30d", "window=7d", "from=2020-01-01&to=2020-02-01", ""):
        api = told(f"api/v1/uptime/?{query}").json()
        page = told(f"uptime/?{query}").content.decode()
        shown = dict(re.findall(r'data-uptime="([^"]*)">\s*([^<]*?)\s*<', page))
        rows = list(csv.DictReader(io.StringIO(told(f"uptime.csv?{query}").content.decode())))
        by_host = {row["server"]: row for row in rows if row["server"]}
        for group in api["groups"]:
            assert shown[group["name"]] == group["shown"]
            for server in group["servers"]:
                assert shown[server["host"]] == server["shown"]
                name = f"'{server['host']}" if server["host"].startswith("=") else server["host"]
                assert float(by_host[name]["uptime_percent"]) == pytest.approx(
                    server["percent"], abs=1e-4
                )
                assert float(by_host[name]["down_seconds"]) == round(server["down"])
        assert len(rows) == 1 + sum(1 + len(group["servers"]) for group in api["groups"])
        assert (api["total"]["percent"] is None) == (query.startswith("from=2020"))


def test_the_servers_page_shows_what_the_api_says(told):
    server = Server.objects.get(host="nova-1")
    api = told(f"api/v1/servers/{server.pk}/uptime/").json()
    page = told(f"servers/{server.pk}/?fragment=uptime").content.decode()
    assert api["windows"]["30d"]["down"] == 3600
    assert api["windows"]["30d"]["maintenance"] == 3 * 3600
    assert api["windows"]["24h"]["percent"] == 100
    for name in ("24h", "7d", "30d", "90d"):
        assert api["windows"][name]["shown"] in page
    assert "1 h down, counted. 3 h of maintenance, not counted." in page
    table = told(f"servers/{server.pk}/?tab=services&fragment=services").content.decode()
    assert api["services"]["nova-api"]["30d"]["shown"] in table
    overview = told(f"servers/{server.pk}/").content.decode()
    assert api["windows"]["30d"]["shown"] in overview


def test_a_groups_uptime_is_that_of_its_servers_while_they_were_in_it(told):
    group = CloudGroup.objects.get()
    found = told(f"api/v1/cloud-groups/{group.pk}/uptime/").json()["windows"]["30d"]
    assert found["down"] == 3 * 3600
    assert found["maintenance"] == 6 * 3600
    [one] = [
        row for row in told("api/v1/uptime/?window=30d").json()["groups"] if row["name"] == "gru"
    ]
    assert one["percent"] == pytest.approx(found["percent"], abs=1e-4)


def test_uptime_of_ten_times_the_servers_takes_no_more_statements(told, django_assert_num_queries):
    from django.db import connection as django_connection
    from django.test.utils import CaptureQueriesContext

    now = timezone.now()
    asked = uptimes.period(now, window="30d")
    with CaptureQueriesContext(django_connection) as few:
        uptimes.report(asked, now)
    for number in range(30):
        make_server(f"more-{number}")
    with django_assert_num_queries(len(few)):
        assert len(uptimes.report(asked, now).sections[1].rows) == 31


def test_a_month_is_a_month_of_the_zone():
    found = uptimes.period(NOON, month="2026-03", zone="Europe/Berlin")
    assert found.span == Span(
        datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC)
    )
    assert found.label == "March 2026"
    assert uptimes.period(NOON).label == "March 2026"
    assert [value for value, _ in uptimes.months(NOON, "UTC", 4)] == [
        "2026-03", "2026-02", "2026-01", "2025-12",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [
        {"month": "2026-13"},
        {"month": "soon"},
        {"month": "0000-01"},
        {"window": "1y"},
        {"zone": "Mars"},
        {"start": "2026-01-01"},
        {"start": "2026-01-01", "end": "2026-01-01"},
        {"start": "2026-02-01", "end": "2026-01-01"},
        {"start": "2020-01-01", "end": "2026-01-01"},
        {"start": "x", "end": "y"},
        {"start": "0001-01-01", "end": "0001-01-02"},
        {"start": "9999-12-30", "end": "9999-12-31"},
    ],
)
def test_what_is_no_period_is_refused(asked):
    with pytest.raises(NotAPeriod):
        uptimes.period(NOON, **asked)


def test_the_past_is_forgotten_when_no_window_reaches_it(acme):
    server = make_server()
    Silence.objects.create(server=server, since=NOON - 500 * DAY, until=NOON - 499 * DAY)
    Silence.objects.create(server=server, since=NOON - 2 * DAY, until=NOON - DAY)
    history.forget(NOON - history.KEEP)
    assert Silence.objects.count() == 1


def test_percent_is_rounded_down_and_nothing_is_a_dash():
    from clouds.uptime import Uptime

    day = timedelta(days=1)
    assert Uptime(day, day, timedelta()).in_words == "100 %"
    assert Uptime(day - SECOND / 2, day, timedelta()).in_words == "99.99 %"
    assert Uptime(timedelta(), day, timedelta()).in_words == "0.00 %"
    assert Uptime(timedelta(), timedelta(), day).in_words == "–"  # noqa: RUF001
