"""Mail: one thread an incident, a chart of what it is about, and a link that stops it."""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes, policy
from io import BytesIO
from urllib.parse import urlsplit

import pytest
from django.core import mail, signing
from django.db import connection, connections
from django.utils import timezone
from PIL import Image

from accounts.access import Access
from accounts.models import AuditEntry, Role
from alerts.models import Alert, ChannelState, Incident, Notification, NotificationChannel
from alerts.notifiers import Picture
from alerts.notifiers.email import Email
from alerts.rulebook import rules
from alerts.telling import charts, delivery, unsubscribing
from alerts.values import pictures
from alerts.values.pictures import Curve
from metrics import ingest
from metrics.batch import Batch, Point, Report
from metrics.stores.base import StoreUnavailable
from sentinel_site.kit.tenancy import in_schema, public_path
from tests.alerts.builders import MINUTE, NOON, make_message, make_rule, make_server
from tests.alerts.test_breaches import read

OPS = {"to": "ops@example.org"}


@pytest.fixture
def channel(acme):
    NotificationChannel.objects.all().delete()
    return NotificationChannel.objects.create(name="Ops", kind="email", config=OPS)


def test_all_that_is_told_of_an_incident_has_one_subject_and_one_thread(channel):
    rule, server = make_rule(), make_server()
    read(rule, server, 90, NOON)
    delivery.deliver_due(NOON)
    Incident.objects.update(title="RabbitMQ is down")  # its cause turned up
    read(rule, server, 10, NOON + MINUTE)
    delivery.deliver_due(NOON + MINUTE)
    begin, end = mail.outbox
    number = Incident.objects.get().pk
    assert begin.subject == f"Busy on nova-1 (incident {number})"
    assert end.subject == f"Re: {begin.subject}"
    assert end.extra_headers["References"] == begin.extra_headers["Message-ID"]
    assert end.body.startswith("Resolved: ")


def test_what_is_critical_is_of_importance_until_it_is_over():
    Email().send(OPS, make_message())
    Email().send(OPS, make_message(is_resolved=True))
    assert ["Importance" in one.extra_headers for one in mail.outbox] == [True, False]


# -- the chart ----------------------------------------------------------------


def test_a_mail_shows_the_chart_of_its_alert_within_itself():
    png = pictures.draw([Curve([0, 60], [1.0, 2.0])], NOON, NOON + MINUTE, "percent")
    Email().send(OPS, make_message(picture=Picture(png, 568, 200, "cpu percent of <nova-1>")))
    sent = message_from_bytes(mail.outbox[0].message().as_bytes(), policy=policy.default)
    (image,) = [part for part in sent.walk() if part.get_content_type() == "image/png"]
    html = sent.get_body(("html",)).get_content()
    assert image["Content-ID"].strip("<>") in html
    assert 'alt="cpu percent of &lt;nova-1&gt;"' in html
    assert image.get_content() == png


def ink(png, color):
    """How many points of a picture have this color."""
    image = Image.open(BytesIO(png)).convert("RGBA")
    return sum(count for count, found in image.getcolors(1 << 20) if found[:3] == color)


def test_a_chart_has_its_curves_a_limit_and_gaps_where_nothing_is_known():
    start = NOON.timestamp()
    times = [start + 60 * number for number in range(60)]
    whole = Curve(times, [50.0 + number % 7 for number in range(60)])
    half = Curve(times, [value if place < 30 else None for place, value in enumerate(whole.values)])

    def draw(*curves, limit=None):
        return pictures.draw(curves, NOON, NOON + 60 * MINUTE, "percent", limit)

    blue, red, brown = (47, 127, 201), (214, 57, 57), (184, 117, 3)
    assert Image.open(BytesIO(draw(whole))).size == (pictures.WIDTH, pictures.HEIGHT)
    assert 0 < ink(draw(half), blue) < ink(draw(whole), blue) * 0.7
    assert ink(draw(whole), red) == 0
    assert ink(draw(whole, limit=90.0), red) > 0
    assert ink(draw(whole, half), brown) > 0


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-12, 98.5, 7e15])
def test_a_level_line_is_drawn_whatever_its_height(value):
    png = pictures.draw([Curve([NOON.timestamp()], [value])], NOON, NOON + MINUTE, "", value)
    assert ink(png, (47, 127, 201)) > 0


def test_without_a_value_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="no values"):
        pictures.draw([Curve([0], [None])], NOON, NOON + MINUTE, "")


def test_the_chart_is_of_the_series_that_the_alert_is_about(acme, channel, monkeypatch):
    server = make_server()
    for minute in range(30):
        points = [
            Point("disk", (("mount", mount),), {"percent": value})
            for mount, value in (("/var", 97.0), ("/srv", 12.0))
        ]
        at = NOON - minute * MINUTE
        report = Report(
            number=0, host=server.host, agent=server.agent_id, at=at,
            interval=timedelta(seconds=10), services_are_all=False, points=points,
        )  # fmt: skip
        assert not ingest.accept(acme, Batch(at, [report])).rejected
    rule = make_rule(measurement="disk", field="percent", thresholds={"warning": 90})
    read(rule, server, 97, NOON, mount="/var")
    drawn = []
    draw = pictures.draw
    monkeypatch.setattr(pictures, "draw", lambda *args: drawn.append(args) or draw(*args))
    delivery.deliver_due(NOON)
    ((curves, _, _, unit, limit),) = drawn
    (curve,) = curves
    assert {value for value in curve.values if value is not None} == {97.0}
    assert (unit, limit) == ("percent", 90)
    assert (
        "disk percent of nova-1 over the last 3 hours (UTC), limit 90.0 %"
        in (mail.outbox[0].alternatives[0][0])
    )


def test_while_the_store_is_away_mail_goes_without_its_chart(channel, monkeypatch):
    def away(*args, **more):
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(charts.queries, "series", away)
    read(make_rule(), make_server(), 90, NOON)
    delivery.deliver_due(NOON)
    assert "cid:" not in mail.outbox[0].alternatives[0][0]


# -- stopping it --------------------------------------------------------------


def path_of(acme, channel):
    return urlsplit(unsubscribing.link(acme, channel, timezone.now())).path


def test_mail_names_how_to_stop_it_and_one_click_does_so(acme, channel, client):
    now = timezone.now()
    read(make_rule(), make_server(), 90, now)
    delivery.deliver_due(now)
    headers = mail.outbox[0].extra_headers
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    path = urlsplit(headers["List-Unsubscribe"].strip("<>")).path
    assert headers["List-Unsubscribe"].strip("<>") in mail.outbox[0].body
    page = client.get(path).content.decode()
    assert "Stop mail to ops@example.org" in page
    assert client.post(path, {"List-Unsubscribe": "One-Click"}).status_code == 200
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
        assert not channel.enabled
    entry = AuditEntry.objects.get(tenant=acme, verb="channel.left")
    assert (entry.subject, entry.data) == ("Ops", {"address": "ops@example.org"})


def test_of_several_only_the_one_that_is_named_is_taken_off(acme, channel, client):
    channel.config = {"to": "a@example.org, b@example.org"}
    channel.save()
    read(make_rule(), make_server(), 90, NOON)
    delivery.deliver_due(NOON)
    assert "List-Unsubscribe-Post" not in mail.outbox[0].extra_headers
    path = path_of(acme, channel)
    assert client.post(path).status_code == 302, "nobody knows whose"
    answer = client.post(path, {"address": "B@example.org"})
    assert "gets no more mail" in answer.content.decode()
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
    assert (channel.config, channel.enabled) == ({"to": "a@example.org"}, True)


def test_others_are_told_when_the_last_one_leaves_and_it_ends_when_it_is_on_again(
    acme, alice, channel, client
):
    NotificationChannel.objects.create(name="Slack", kind="slack", config={"url": "https://x.org"})
    read(make_rule(), make_server(), 90, NOON)
    assert client.post(path_of(acme, channel)).status_code == 200
    with in_schema(acme.schema_name):
        alert = Alert.objects.get(fingerprint=f"channel:{channel.pk}")
        assert alert.resolved_at is None
        assert "the last one to get it stopped it" in alert.incident.event_set.first().text
        told = Notification.objects.filter(incident=alert.incident)
        assert [row.channel.name for row in told] == ["Slack"]
        channel.refresh_from_db()
        channel.enabled = True
        rules.save_channel(Access(acme, Role.OWNER, alice), channel, timezone.now())
        alert.refresh_from_db()
        assert alert.resolved_at is not None


def test_what_still_waits_for_it_goes_to_others_when_the_last_one_leaves(acme, channel, client):
    read(make_rule(), make_server(), 90, NOON)
    waiting = Notification.objects.get()
    other = NotificationChannel.objects.create(
        name="Slack", kind="slack", config={"url": "https://x.org"}
    )
    assert client.post(path_of(acme, channel)).status_code == 200
    with in_schema(acme.schema_name):
        told = Notification.objects.get(channel=other, incident=waiting.incident)
        assert (told.transition, told.state) == (waiting.transition, Notification.State.WAITING)


def test_what_was_held_back_is_so_still_when_it_goes_to_others(acme, channel, client):
    now = timezone.now()
    read(make_rule(), make_server(), 90, now)
    other = NotificationChannel.objects.create(
        name="Slack", kind="slack", config={"url": "https://x.org"}
    )
    Notification.objects.update(due_at=now + 30 * MINUTE)
    held = Notification.objects.get()
    assert client.post(path_of(acme, channel)).status_code == 200
    with in_schema(acme.schema_name):
        told = Notification.objects.get(channel=other, incident=held.incident)
        assert told.due_at == held.due_at


@pytest.mark.django_db(transaction=True)  # there are two of them
def test_who_leaves_holds_nothing_that_a_worker_needs_for_its_first_message(acme, channel):
    """A worker makes the channel's state, and needs the channel itself when it commits."""
    said = unsubscribing.read(path_of(acme, channel).split("/")[2], timezone.now())
    worker = connections.create_connection("default")
    worker.set_schema(acme.schema_name)
    table = ChannelState._meta.db_table
    made = []

    def make_it_first(execute, sql, *given):
        if sql.startswith("INSERT") and table in sql and not made:
            with worker.cursor() as cursor:
                cursor.execute("SET lock_timeout = '1s'")
                cursor.execute(
                    f'INSERT INTO "{table}" (channel_id, failures, is_broken, bounce)'  # noqa: S608
                    " VALUES (%s, 0, FALSE, '')",
                    [channel.pk],
                )
            made.append(True)
        return execute(sql, *given)

    try:
        with connection.execute_wrapper(make_it_first):
            unsubscribing.leave(said, "ops@example.org", timezone.now())
    finally:
        worker.close()
    assert made
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
        assert not channel.enabled


def test_a_link_that_does_not_say_for_whom_it_is_is_too_old(acme, channel, client):
    first = signing.dumps([acme.pk, channel.pk], salt="alerts.unsubscribe")
    answer = client.get(public_path("unsubscribe", token=first))
    assert answer.status_code == 410
    assert "Use the link of a newer mail" in answer.content.decode()


def test_a_link_shows_and_takes_off_those_alone_to_whom_its_mail_went(acme, channel, client):
    old = path_of(acme, channel)
    channel.config = {"to": "new@example.org, OPS@example.org"}
    channel.save()
    page = client.get(old).content.decode()
    assert "OPS@example.org" in page
    assert "new@example.org" not in page
    refused = client.post(old, {"address": "new@example.org"})
    assert "by this link" in client.get(refused.url).content.decode()
    assert client.post(old).status_code == 200, "the one to whom it went"
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
    assert (channel.config, channel.enabled) == ({"to": "new@example.org"}, True)
    assert "Nobody to whom this mail went" in client.get(old).content.decode()


def test_a_link_of_an_old_mail_stops_nothing_and_says_so(acme, channel, client):
    made_at = timezone.now() - unsubscribing.HOLDS - MINUTE
    path = urlsplit(unsubscribing.link(acme, channel, made_at)).path
    answer = client.get(path)
    assert answer.status_code == 410
    assert "Use the link of a newer mail" in answer.content.decode()
    client.post(path, {"address": "ops@example.org"})
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
    assert channel.enabled


def test_a_link_for_as_many_as_a_channel_may_write_to_stays_one_line_of_a_header(acme, channel):
    people = [f"somebody.with.a.long.name{number}@mail.example.org" for number in range(50)]
    channel.config = {"to": ", ".join(people)}
    channel.save()
    link = unsubscribing.link(acme, channel, NOON)
    Email().send(channel.config, make_message(leave=link))
    raw = mail.outbox[0].message().as_bytes().replace(b"\r\n", b"\n")
    assert f"\n <{link}>\n".encode() in raw or f"List-Unsubscribe: <{link}>\n".encode() in raw
    assert len(link) < 900


def test_a_link_that_nobody_made_stops_nothing(acme, channel, client):
    assert client.get("/unsubscribe/made-up/").status_code == 404
    forged = path_of(acme, channel).replace(":", "x", 1)
    assert client.post(forged, {"address": "ops@example.org"}).status_code == 404
    other = client.post(path_of(acme, channel), {"address": "someone@else.org"})
    assert other.status_code == 302
    assert "gets no mail of this channel" in client.get(other.url).content.decode()
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
    assert channel.enabled
