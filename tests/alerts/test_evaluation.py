"""From stored data to alerts: Chronos over points, Aeolus over log events, silence."""

from __future__ import annotations

import gc
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
import redis
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import timers
from accounts.models import Tenant, Timer
from alerts.engines import evaluation, fleet
from alerts.lifecycle import incidents
from alerts.models import Alert, Incident, Rule
from alerts.pages import queries
from alerts.rulebook import defaults
from clouds.models import Server
from metrics import ingest, outages
from metrics import queries as metrics
from metrics.batch import Batch, Event, Point, Report, State
from sentinel_site.celery import app as celery_app
from sentinel_site.kit import listening
from sentinel_site.kit.redis_client import client as redis_client
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, SECOND, looked_at, make_rule, make_server

NOW = timezone.now().replace(microsecond=0)
LATER = NOW + timedelta(hours=1)
AGENT = uuid4()


def send(
    tenant, at: datetime, *points: Point, events=(), agent: UUID = AGENT, host="nova-1", **more
):
    report = Report(
        number=0,
        host=host,
        agent=agent,
        at=at,
        interval=10 * SECOND,
        epoch="e",
        sequence=int(at.timestamp()) - int(NOW.timestamp()) + 100_000,
        points=list(points),
        events=list(events),
        **more,
    )
    answer = ingest.accept(
        ingest.Holder(tenant.pk, tenant.schema_name), Batch(reports=[report], received_at=at)
    )
    assert answer.rejected == []


def point(measurement: str, fields: dict[str, float], **tags: str) -> Point:
    return Point(measurement, tuple(sorted(tags.items())), fields)


def cpu(percent: float) -> Point:
    return point("cpu", {"percent": percent})


@pytest.fixture(autouse=True)
def _nothing_rang(db):
    Timer.objects.all().delete()


@pytest.fixture(autouse=True)
def _nobody_has_listened():
    redis_client.cache_clear()
    redis_client().flushdb()


@pytest.fixture
def rules(acme):
    """No rule but the test's own."""
    Rule.objects.all().delete()


def test_a_metric_rule_opens_and_resolves_over_stored_points(acme, rules):
    make_rule("Busy", window=20 * SECOND, hold=20 * SECOND)
    for seconds in range(0, 30, 10):
        send(acme, NOW + seconds * SECOND, cpu(95))
        evaluation.evaluate(NOW + seconds * SECOND)
    alert = Alert.objects.get()
    assert alert.opened_at == NOW + 20 * SECOND
    assert (alert.server.host, alert.value, alert.unit) == ("nova-1", 95, "percent")
    said = alert.incident.event_set.get().text
    assert said == ("The processors of nova-1 are 95.0 % busy, averaged over 20 s (limit 60.0 %)")
    for seconds in (30, 40, 50):
        send(acme, NOW + seconds * SECOND, cpu(5))
        evaluation.evaluate(NOW + seconds * SECOND)
    alert.refresh_from_db()
    assert alert.resolved_at is not None


def test_the_same_slot_twice_is_the_same_run(acme, rules):
    make_rule()
    send(acme, NOW, cpu(95))
    evaluation.evaluate(NOW)
    evaluation.evaluate(NOW)
    assert Alert.objects.count() == Incident.objects.count() == 1


def test_each_mount_has_an_alert_that_names_it(acme, rules):
    make_rule("Full", measurement="disk", aggregation="last", thresholds={"critical": 95})
    send(
        acme,
        NOW,
        point("disk", {"percent": 99.0}, mount="/var", device="vdb"),
        point("disk", {"percent": 9.0}, mount="/", device="vda"),
    )
    evaluation.evaluate(NOW)
    assert Alert.objects.get().subject == "/var"


def test_a_rule_of_one_server_leaves_the_others_alone(acme, rules):
    send(acme, NOW, cpu(95))
    send(acme, NOW, cpu(95), agent=uuid4(), host="nova-2")
    make_rule(server=Server.objects.get(host="nova-2"))
    evaluation.evaluate(NOW)
    assert Alert.objects.get().server.host == "nova-2"


def test_a_rule_sees_no_points_of_another_tenant(acme, rules, globex):
    with in_schema(globex.schema_name):
        send(globex, NOW, cpu(99))
    make_rule()
    send(acme, NOW, cpu(5))
    evaluation.evaluate(NOW)
    assert not Alert.objects.exists()


def log(at: datetime, level: str, message: str, key: str) -> Event:
    return Event(item=key, at=at, level=0 if level == "critical" else 1, message=message,
                 service="nova-compute", key=key.encode().ljust(16, b"0"))  # fmt: skip


def test_an_event_rule_counts_within_its_window_and_resolves_after_it(acme, rules):
    Rule.objects.create(
        name="Errors", kind="event", level="error", words="lost connection", aggregation="count",
        comparison=">=", thresholds={"error": 2}, window=MINUTE,
    )  # fmt: skip
    send(acme, NOW, events=[log(NOW, "error", "Lost connection to MySQL", "a")])
    evaluation.evaluate(NOW)
    assert not Alert.objects.exists()
    later = NOW + 10 * SECOND
    send(acme, later, events=[log(later, "critical", "AMQP: lost connection", "b")])
    evaluation.evaluate(later)
    alert = Alert.objects.get()
    assert (alert.value, alert.service, alert.subject) == (2, "nova-compute", "lost connection")
    evaluation.evaluate(later + MINUTE)
    alert.refresh_from_db()
    assert alert.resolved_at == later + MINUTE


def test_an_incident_says_what_is_known_of_its_log_lines(acme, rules, bob, client):
    Rule.objects.create(
        name="Errors", kind="event", level="error", aggregation="count",
        comparison=">=", thresholds={"error": 3}, window=MINUTE,
    )  # fmt: skip
    lines = [
        "Connection failed: [Errno 111] ECONNREFUSED (retrying in 8.0 seconds)",
        "Connection failed: [Errno 111] ECONNREFUSED (retrying in 16.0 seconds)",
        "OSError: [Errno 28] No space left on device",
        "Instance failed to spawn",
    ]
    send(acme, NOW, events=[log(NOW, "error", line, str(n)) for n, line in enumerate(lines)])
    evaluation.evaluate(NOW)
    client.force_login(bob)
    page = client.get(f"/o/acme/incidents/{Incident.objects.get().pk}/").content.decode()
    advice = page[page.index("What to do") : page.index('aria-label="Log lines"')]
    assert advice.index("RabbitMQ can&#x27;t be reached") < advice.index("A disk is full")
    assert advice.count("RabbitMQ can&#x27;t be reached") == 1
    assert "rabbitmqctl cluster_status" in advice
    assert page.count("Known: RabbitMQ can&#x27;t be reached") == 2
    logs = client.get("/o/acme/logs/?q=Errno").content.decode()
    assert "Known: A disk is full" in logs


def test_a_silent_server_says_why_its_agent_stopped(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    Server.objects.update(goodbye="the host shuts down", goodbye_at=NOW)
    evaluation.evaluate(NOW + 65 * SECOND)
    assert not Alert.objects.exists(), "it is given time to come back"
    evaluation.evaluate(NOW + 16 * MINUTE + 5 * SECOND)
    (event,) = Alert.objects.get().incident.event_set.all()[:1]
    assert "its agent stopped: the host shuts down" in event.text


def test_silence_is_one_alert_and_ends_with_the_next_report(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    evaluation.evaluate(NOW + 60 * SECOND)
    assert not Alert.objects.exists()
    for seconds in (65, 70, 75):
        evaluation.evaluate(NOW + seconds * SECOND)
    alert = Alert.objects.get()
    assert (alert.service, alert.subject, alert.severity) == ("agent", "reports", "critical")
    assert alert.server.status == Server.Status.SILENT
    assert "nova-1 has sent no report for 1 min 5 s" in alert.incident.event_set.first().text
    send(acme, NOW + 80 * SECOND, cpu(1))
    evaluation.evaluate(NOW + 85 * SECOND)
    alert.refresh_from_db()
    assert alert.resolved_at is not None
    assert Server.objects.get().status == Server.Status.UP


def test_one_that_never_reported_is_silent_from_its_registration_on(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    server = make_server(registered_at=NOW)
    evaluation.evaluate(NOW + 59 * SECOND)
    assert not Alert.objects.exists()
    evaluation.evaluate(NOW + 61 * SECOND)
    assert Alert.objects.get().server == server
    server.refresh_from_db()
    assert server.status == Server.Status.SILENT


def test_nobody_is_silent_while_nobody_listens_nor_right_after(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    listening.note(NOW)
    evaluation.evaluate(NOW + 5 * MINUTE)
    assert not Alert.objects.exists(), "the web process was away"
    assert looked_at(acme) is not None, "and is looked at again"
    back = NOW + 6 * MINUTE
    for seconds in range(0, 65, 5):
        listening.note(back + seconds * SECOND)
    evaluation.evaluate(back + 59 * SECOND)
    assert not Alert.objects.exists(), "it may still send"
    evaluation.evaluate(back + 65 * SECOND)
    assert Alert.objects.get().resolved_at is None


def test_a_redis_that_forgot_us_makes_nobody_silent(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    outages.mark(NOW)
    redis_client().delete(listening._KEY)
    evaluation.evaluate(NOW + 5 * MINUTE)
    assert not Alert.objects.exists(), "nobody listened, as the database knows"
    outages.mark(NOW + 5 * MINUTE)
    evaluation.evaluate(NOW + 5 * MINUTE + 30 * SECOND)
    assert Alert.objects.get().resolved_at is None, "somebody does, and it is still not heard"


def test_without_redis_the_database_tells_whether_anybody_listens(acme, rules, monkeypatch):
    def away():
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(listening, "last", away)
    assert fleet.listening_since(NOW) is None
    outages.mark(NOW)
    assert fleet.listening_since(NOW + 35 * SECOND) is None
    assert fleet.listening_since(NOW + 36 * SECOND) == NOW + 36 * SECOND


def test_a_silent_server_stays_so_though_we_listen_anew(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    evaluation.evaluate(NOW + 2 * MINUTE)
    listening.note(NOW + 9 * MINUTE)
    evaluation.evaluate(NOW + 9 * MINUTE + 5 * SECOND)
    assert Alert.objects.get().resolved_at is None
    assert Server.objects.get().status == Server.Status.SILENT


def test_the_default_rules_are_quiet_on_a_healthy_server(acme):
    send(
        acme,
        NOW,
        cpu(12),
        point("memory", {"percent": 40.0}),
        point("disk", {"percent": 30.0, "inodes_percent": 3.0}, mount="/"),
        point("load", {"load1": 0.2, "load_per_core": 0.1}),
        point("service", {"up": 1, "down": 0, "ports_silent": 0}, service="nova-api"),
        point("service", {"up": 0}, service="nova-cert"),  # as the original names what never ran
    )
    evaluation.evaluate(NOW)
    assert not Alert.objects.exists()
    assert Rule.objects.filter(enabled=True).count() == len(defaults.RULES)


def test_a_service_that_is_gone_is_an_alert_until_it_is_back(acme):
    for gone, at in ((1, NOW), (0, NOW + MINUTE)):
        send(
            acme,
            at,
            point("service", {"up": 1 - gone, "down": gone}, service="nova-api", project="nova"),
            point("service", {"up": 1, "down": 0}, service="keystone", project="keystone"),
        )
        evaluation.evaluate(at)
        alert = Alert.objects.get()
        assert (alert.service, alert.severity) == ("nova-api", "error")
        assert (alert.resolved_at is None) == bool(gone)
    assert alert.incident.title == "nova-api is down"
    opened, resolved = alert.incident.event_set.order_by("pk").values_list("text", flat=True)
    assert opened == f"nova-api is down on nova-1 since {NOW:%H:%M} UTC (nova)"
    assert resolved == "nova-api is up again on nova-1 (nova)."


def test_the_page_and_the_api_say_what_the_mail_says(acme, alice, client):
    down = point("service", {"up": 0, "down": 1}, service="nova-api", project="nova")
    send(acme, NOW, down)
    evaluation.evaluate(NOW)
    incident = Incident.objects.get()
    said = f"nova-api is down on nova-1 since {NOW:%H:%M} UTC (nova)"
    assert queries.incident(incident.pk).about == "", "its title names the service already"
    client.force_login(alice)
    for path in (f"incidents/{incident.pk}/", "incidents/", f"api/v1/incidents/{incident.pk}/"):
        shown = client.get(f"/o/acme/{path}").content.decode()
        assert said in shown
        assert "service down" not in shown
        assert "Last value" not in shown


@pytest.mark.parametrize("others", [True, False])
def test_a_service_that_its_agent_was_told_to_watch_no_more_is_no_alert_any_more(acme, others):
    api = State(name="nova-api", project="nova", state="down", workers=0)
    keystone = State(name="keystone", project="keystone", state="up", workers=1)
    down = point("service", {"up": 0, "down": 1}, service="nova-api", project="nova")
    own = point("agent", {"cpu_percent": 1})
    send(acme, NOW, down, own, services=[api, keystone])
    evaluation.evaluate(NOW)
    assert Alert.objects.get().resolved_at is None
    for seconds in (10, 40, 100):
        at = NOW + seconds * SECOND
        send(acme, at, own, services=[keystone] if others else [])
        evaluation.evaluate(at)
        alert = Alert.objects.get()
        assert (alert.resolved_at is not None) == (others and seconds == 100)
    if others:
        evaluation.evaluate(at + 10 * SECOND)
        assert Alert.objects.get().incident.event_set.last().text == (
            "The agent of nova-1 does not watch nova-api any more."
        ), "and it does not open again while the last point lies in the rule's window"


def test_an_evaluation_asks_no_more_questions_for_many_servers_than_for_one(acme):
    def questions(at: datetime) -> int:
        with CaptureQueriesContext(connection) as asked:
            evaluation.evaluate(at)
        return len(asked)

    send(acme, NOW, cpu(12))
    evaluation.evaluate(NOW)
    one = questions(NOW)
    for number in range(20):
        send(acme, NOW, cpu(12), agent=uuid4(), host=f"nova-{number + 2}")
    evaluation.evaluate(NOW)
    assert questions(NOW) <= one


def test_a_tenant_whose_data_stopped_is_woken_for_its_silence(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    Server.objects.update(interval=timedelta(minutes=10))
    evaluation.evaluate(NOW)
    assert looked_at(acme) == NOW + timedelta(minutes=30, seconds=30)


def test_silence_is_noticed_though_nobody_looked_while_it_began(acme, rules):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    evaluation.evaluate(NOW)
    assert looked_at(acme) == NOW + MINUTE, "three of 10 s, and 30 s"
    later = NOW + 10 * MINUTE
    assert metrics.active_tenants(later) == []
    assert timers.claim_due(later, [], later + evaluation.CLAIM) == [acme.schema_name]
    evaluation.evaluate(later)
    assert Alert.objects.get().title == "Server silent"


@pytest.fixture
def asked():
    """The evaluations that were asked for at an instant: (schemas, slot, when it may begin)."""
    with celery_app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        queue.clear()

        def take() -> list[tuple[list[str], datetime, datetime]]:
            found = []
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    return found
                message.ack()
                (schemas, slot), _, _ = message.payload
                eta = datetime.fromisoformat(message.headers["eta"])
                found.append((schemas, datetime.fromisoformat(slot), eta))

        yield take
        queue.clear()


def test_a_breach_that_will_hold_before_the_next_tick_is_looked_at_when_it_holds(
    acme, rules, asked
):
    make_rule(hold=20 * SECOND, window=MINUTE)
    send(acme, NOW, cpu(99))
    evaluation.evaluate(NOW + SECOND)
    assert asked() == [], "nothing that a tick would not see in time"
    evaluation.evaluate(NOW + 16 * SECOND)
    ((schemas, slot, eta),) = asked()
    assert schemas == [acme.schema_name]
    assert slot == eta == NOW + 20 * SECOND + evaluation.MOMENT
    assert not Alert.objects.exists()
    evaluation.evaluate(slot)
    assert Alert.objects.get().title.startswith("Busy")
    assert asked() == [], "what holds is not waited for any more"


def test_silence_between_two_ticks_is_seen_when_it_begins(acme, rules, asked):
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    send(acme, NOW, cpu(1))
    evaluation.evaluate(NOW + 58 * SECOND)
    ((_, slot, _),) = asked()
    evaluation.evaluate(slot)
    assert Alert.objects.get().title == "Server silent"
    assert slot - NOW < MINUTE + SECOND


def test_an_evaluation_that_was_lost_is_due_again(acme, rules):
    timers.wake(acme.schema_name, NOW)
    until = NOW + evaluation.CLAIM
    assert timers.claim_due(NOW, [], until) == [acme.schema_name]
    assert timers.claim_due(NOW + 30 * SECOND, [], LATER) == []
    assert timers.claim_due(until, [], until + evaluation.CLAIM) == [acme.schema_name]
    evaluation.evaluate(until)
    assert looked_at(acme) is None, "nothing is due"


def test_what_wakes_a_tenant_while_it_is_looked_at_is_seen_afterwards(acme, rules, monkeypatch):
    """Another transaction's news came after this evaluation had read what there was."""
    timers.wake(acme.schema_name, NOW)

    def meanwhile(at: datetime, listening_since: datetime | None = None) -> None:
        Timer.objects.create(tenant=acme, at=NOW - SECOND)

    monkeypatch.setattr(evaluation.external, "expire", meanwhile)
    evaluation.evaluate(NOW)
    assert looked_at(acme) == NOW - SECOND
    monkeypatch.undo()
    evaluation.evaluate(NOW + SECOND)
    assert looked_at(acme) is None


def test_a_process_that_is_stopped_while_it_evaluates_keeps_nobody_waiting_for_ever(
    acme, rules, monkeypatch
):
    seen = []

    def meanwhile(at: datetime, listening_since: datetime | None = None) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            seen.extend(cursor.fetchone())

    monkeypatch.setattr(evaluation.external, "expire", meanwhile)
    evaluation.evaluate(NOW)
    assert seen == ["1min"]


def test_whoever_wakes_a_tenant_changes_no_row_that_others_want(acme):
    with CaptureQueriesContext(connection) as asked:
        timers.wake(acme.schema_name, NOW)
    (only,) = [one["sql"] for one in asked if '"accounts_' in one["sql"]]
    assert only.startswith("INSERT")


def test_only_tenants_with_data_or_a_timer_cost_a_task(acme, globex):
    Tenant.objects.update(timer_at=None)
    assert timers.claim_due(NOW, metrics.active_tenants(NOW), LATER) == []
    send(acme, NOW, cpu(1))
    assert timers.claim_due(NOW, metrics.active_tenants(NOW), LATER) == [acme.schema_name]
    timers.wake(globex.schema_name, NOW + MINUTE)
    timers.wake(globex.schema_name, NOW + 2 * MINUTE)
    assert globex.schema_name not in timers.claim_due(NOW, [], LATER)
    assert timers.claim_due(NOW + MINUTE, [], LATER) == [globex.schema_name]
    assert timers.claim_due(NOW + MINUTE, [], LATER) == [], "a timer rings once"


def test_a_breach_that_began_in_an_outage_counts_from_then(acme, rules):
    make_rule(hold=5 * MINUTE, window=MINUTE)
    send(acme, NOW - 20 * MINUTE, cpu(5))
    evaluation.evaluate(NOW - 20 * MINUTE)
    for minutes in range(10, -1, -1):
        send(acme, NOW - minutes * MINUTE, cpu(95))
    evaluation.evaluate(NOW)
    assert Alert.objects.get().opened_at == NOW


def test_all_that_an_outage_left_to_read_is_read_before_anybody_has_to_wait(
    acme, rules, monkeypatch
):
    make_rule(hold=5 * MINUTE, window=MINUTE)
    send(acme, NOW - 20 * MINUTE, cpu(5))
    evaluation.evaluate(NOW - 20 * MINUTE)
    send(acme, NOW, cpu(95))
    done = []
    windows, turn = metrics.windows, incidents.one_at_a_time
    monkeypatch.setattr(metrics, "windows", lambda *a: done.append("read") or windows(*a))
    monkeypatch.setattr(incidents, "one_at_a_time", lambda: done.append("turn") or turn())
    evaluation.evaluate(NOW)
    assert done.count("read") > 5
    assert "read" not in done[done.index("turn") :]


def test_what_came_and_went_in_an_outage_is_told_to_nobody(acme, rules):
    make_rule(hold=5 * MINUTE, window=MINUTE)
    send(acme, NOW - 20 * MINUTE, cpu(5))
    evaluation.evaluate(NOW - 20 * MINUTE)
    for minutes in range(15, -1, -1):
        send(acme, NOW - minutes * MINUTE, cpu(95 if minutes > 4 else 5))
    evaluation.evaluate(NOW)
    assert not Alert.objects.exists()
    for minutes in range(1, 5):
        send(acme, NOW + minutes * MINUTE, cpu(95))
        evaluation.evaluate(NOW + minutes * MINUTE)
    assert not Alert.objects.exists(), "it began anew"


def test_how_far_evaluation_is_behind_is_a_number(acme, rules):
    Tenant.objects.update(timer_at=None, evaluated_at=None)
    late = timezone.now() - 40 * SECOND
    evaluation.evaluate(late)
    lag = timers.lag(timezone.now())
    assert 40 * SECOND <= lag < 60 * SECOND
    timers.wake(acme.schema_name, timezone.now() - 5 * MINUTE)
    assert timers.lag(timezone.now()) >= 5 * MINUTE


def test_one_broken_tenant_stops_no_other(acme, globex, rules, caplog):
    from alerts.tasks import evaluate

    make_rule()
    send(acme, NOW, cpu(95))
    with in_schema(globex.schema_name):
        Rule.objects.create(
            name="Broken", measurement="cpu", field="percent", aggregation="none",
            thresholds={"warning": 1},
        )  # fmt: skip
    evaluate([globex.schema_name, acme.schema_name], NOW.isoformat())
    with in_schema(acme.schema_name):
        assert Alert.objects.count() == 1
    assert "tenant failed" in caplog.text


def test_the_services_of_a_server_and_its_health_are_counted_together(acme, rules):
    make_rule()
    up = State(name="nova-compute", project="nova", state="up", workers=2)
    send(acme, NOW, cpu(95), services=[up])
    evaluation.evaluate(NOW)
    server = Server.objects.get()
    assert queries.state_of(server) == "warning"
    assert server.service_set.get().is_down is False


def test_migrations_are_complete(db):
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_garbage_is_collected_again_after_an_evaluation_that_failed(acme, monkeypatch):
    seen = []

    def fails(*args):
        seen.append(gc.isenabled())
        raise RuntimeError

    monkeypatch.setattr(evaluation.fleet, "read", fails)
    with pytest.raises(RuntimeError):
        evaluation.evaluate(timezone.now())
    assert seen == [False]
    assert gc.isenabled()
