"""A cloud fails, and one message names the cause: sent through the agents' door, slot by slot."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import timedelta
from math import ceil
from types import SimpleNamespace

import pytest
from django.core import mail
from django.db.models import Count, Q
from django.utils import timezone

from accounts import keys
from accounts.models import Key
from alerts import knowledge
from alerts.engines import evaluation
from alerts.lifecycle import evidence, topology
from alerts.models import Incident, Notification, NotificationChannel, Rule
from alerts.telling import delivery
from clouds import suppression
from clouds.models import CloudGroup, Server, Service
from metrics.api import doors
from sentinel_site.kit import listening, outbound
from tests.alerts import cascades
from tests.alerts.builders import MINUTE, make_rule
from tests.metrics.builders import post

#: So many clouds fail at once, each by a chance of its own; what belongs to one stays with it.
SEEDS = 20
FEWER = 4
SLOT = 20.0
#: The hot door takes so many reports in a request.
MOST = 500


def take_as_sent(now):
    """Every message that is due arrives at once."""
    due = Notification.objects.filter(state="waiting", due_at__lte=now)
    due.update(state="sent", attempts=1, sent_at=now)


class World:
    """The tenant, its clouds, and the time."""

    def __init__(self, key, clock, clouds, deliver):
        self.key, self.clock, self.deliver = key, clock, deliver
        self.began = timezone.now().replace(microsecond=0)
        self.clouds = [cascades.cloud(f"s{seed:02}") for seed in range(clouds)]
        for cloud in self.clouds:
            self._add(cloud.group, cloud.own)
            self._add(cloud.other_group, cloud.others)

    def _add(self, name, hosts):
        group = CloudGroup.objects.create(name=name)
        servers = Server.objects.bulk_create(
            Server(
                host=one.name,
                agent_id=one.agent,
                group=group,
                interval=timedelta(seconds=cascades.INTERVAL),
                registered_at=self.began - MINUTE,
                status_since=self.began - MINUTE,
            )
            for one in hosts
        )
        Service.objects.bulk_create(
            Service(
                server=server,
                name=service,
                project=project,
                state="up",
                since=self.began - MINUTE,
                seen_at=self.began - MINUTE,
                seen_up_at=self.began - MINUTE,
            )
            for server, one in zip(servers, hosts, strict=True)
            for service, project in one.services.items()
            if one.tells_states
        )

    def at(self, seconds):
        return self.began + timedelta(seconds=seconds)

    def send(self, reports, at):
        self.clock.now = at
        answer = post(
            "/api/v1/reports",
            json.dumps({"reports": reports}).encode(),
            Authorization=f"Bearer {self.key}",
        )
        assert answer.status_code == 200, answer.content
        assert answer.json()["rejected"] == []

    def slots(self, chances, until):
        """Send what arrives, evaluate and deliver, one slot after the other; their times."""
        by_slot = defaultdict(list)
        for cloud, chance in zip(self.clouds, chances, strict=True):
            for arrives, report in cascades.arrivals(cloud, chance, self.began.timestamp(), until):
                by_slot[ceil(arrives / SLOT)].append(report)
        for number in range(-int(cascades.BEFORE / SLOT), int(until / SLOT) + 1):
            chances[0].shuffle(by_slot[number])
            for some in range(0, len(by_slot[number]), MOST):
                self.send(by_slot[number][some : some + MOST], self.at(number * SLOT))
            evaluation.evaluate(self.at(number * SLOT))
            self.deliver(self.at(number * SLOT))
            yield number * SLOT


@pytest.fixture
def world(acme, monkeypatch):
    clock = SimpleNamespace(now=None)
    monkeypatch.setattr(doors, "timezone", SimpleNamespace(now=lambda: clock.now))
    monkeypatch.setattr(listening, "last", lambda: None)
    keys.forget_cached()
    Rule.objects.filter(name__in=["Processor busy", "Memory short", "Load high"]).delete()
    make_rule("Busy", thresholds={"warning": 95}, window=MINUTE, aggregation="last")
    make_rule(
        "Short", measurement="memory", thresholds={"warning": 90}, window=MINUTE, aggregation="last"
    )
    make_rule(
        "Missing in the cloud",
        measurement="openstack_service",
        field="up",
        comparison="<",
        thresholds={"error": 1},
        window=2 * MINUTE,
        aggregation="last",
    )
    NotificationChannel.objects.create(
        name="Slack", kind="slack", config={"url": "https://hooks.slack.com/services/T/B/x"}
    )
    Rule.objects.filter(name="Critical log events").update(window=MINUTE)
    key = keys.issue(acme, Key.Scope.INGEST)[1]
    return lambda clouds, deliver: World(key, clock, clouds, deliver)


_FIRST, *_OTHERS = cascades.CASCADES


@pytest.mark.parametrize(
    ("cascade", "seeds"),
    [
        pytest.param(_FIRST, SEEDS, id=_FIRST.name),
        *(pytest.param(one, FEWER, id=one.name) for one in _OTHERS),
        *(
            pytest.param(one, SEEDS, id=f"{one.name}-all", marks=pytest.mark.chaos)
            for one in _OTHERS
        ),
    ],
)
def test_a_cascade_is_one_incident_that_names_its_cause_and_is_told_once(world, cascade, seeds):
    world = world(seeds, take_as_sent)
    chances = [random.Random(f"{cascade.name} {seed}") for seed in range(seeds)]  # noqa: S311
    unrelated = []
    for cloud, chance in zip(world.clouds, chances, strict=True):
        cascade.break_it(cloud, chance, cascade.mended)
        unrelated.append(cascades.add_unrelated(cloud, chance, until=1e6))
        if cascade.name not in ("host", "partition"):
            free = [one.name for one in cloud.computes if not one.points]
            muted = Server.objects.get(host=chance.choice(free))
            why = suppression.Why("kernel update")
            suppression.start_maintenance(muted, why, world.at(-50), None)
    slots = world.slots(chances, cascade.mended + cascades.OVER)
    while next(slots) < cascade.mended - SLOT:
        continue

    found = [_found_in(cloud) for cloud in world.clouds]
    for (incident, apart), titles in zip(found, unrelated, strict=True):
        assert {(one.alert_set.get().host, one.title) for one in apart} == titles
        assert incident.cause.startswith(cascade.cause)
        assert incident.alert_set.filter(resolved_at=None).count() >= cascade.least
        assert _told(incident) == _OPENED
        if cascade.entry:
            assert incident.evidence["known"][0] == cascade.entry
            (entry,) = (one for one in knowledge.entries() if one.id == cascade.entry)
            assert entry.checks
            assert entry.actions

    for _ in slots:
        pass
    for incident, apart in found:
        incident.refresh_from_db()
        assert incident.resolved_at is not None
        assert _told(incident) == [*_OPENED, *_RESOLVED]
        assert [_told(one) for one in apart] == [_OPENED] * 5
    assert Incident.objects.filter(merged_into=None).count() == 6 * seeds


def test_a_cascade_is_one_mail_and_one_slack_message_until_it_is_over(world, monkeypatch):
    posted = []

    def post_to_slack(url, body, headers, **_):
        posted.append(json.loads(body))
        return SimpleNamespace(status=200, text="ok", headers={})

    monkeypatch.setattr(outbound, "post", post_to_slack)
    cascade, chance = cascades.CASCADES[0], random.Random(7)  # noqa: S311
    world = world(1, delivery.deliver_due)
    cascade.break_it(world.clouds[0], chance, cascade.mended)
    for _ in world.slots([chance], cascade.mended + cascades.OVER):
        pass
    begin, end = mail.outbox
    assert "RabbitMQ" in begin.body
    assert "systemctl status rabbitmq-server" in begin.body
    assert end.body.startswith("Resolved: ")
    assert end.subject == f"Re: {begin.subject}", "mailboxes keep them together"
    assert len(posted) == 2
    assert "RabbitMQ" in json.dumps(posted[0])


def test_every_cause_that_can_be_named_has_something_to_do():
    ids = {entry.id for entry in knowledge.entries()}
    assert set(evidence.RUNBOOKS.values()) <= ids
    assert set(evidence.RUNBOOKS) - {"disk"} <= topology.needed_by_others()


_OPENED = [("email", "opened"), ("slack", "opened")]
_RESOLVED = [("email", "resolved"), ("slack", "resolved")]


def _found_in(cloud):
    """The incident of what failed, and those of what has nothing to do with it."""
    hosts = [one.name for one in cloud.hosts]
    found = Incident.objects.filter(merged_into=None, alert__server__host__in=hosts).distinct()
    rows = list(found.annotate(size=Count("alert")).order_by("pk"))
    biggest = max(rows, key=lambda one: one.size)
    return biggest, [one for one in rows if one != biggest]


def _told(incident):
    """By which kind of channel of what, also under the names of those merged into it."""
    rows = Notification.objects.filter(Q(incident=incident) | Q(incident__merged_into=incident))
    found = rows.filter(state="sent").values_list("channel__kind", "transition")
    return sorted(
        ((kind, transition.split(":")[0]) for kind, transition in found), key=lambda one: one[::-1]
    )
