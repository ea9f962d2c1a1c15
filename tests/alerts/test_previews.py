"""A preview tells what evaluation would have raised, and did, of the same data."""

from __future__ import annotations

import random
from datetime import timedelta
from uuid import uuid4

import pytest

from alerts.engines import evaluation, previews
from alerts.models import Alert, Judgement, Rule
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, SECOND, make_rule
from tests.alerts.test_evaluation import (  # noqa: F401
    NOW,
    _nobody_has_listened,
    cpu,
    log,
    point,
    rules,
    send,
)

SLOTS = 30
AGENTS = {host: uuid4() for host in ("nova-1", "nova-2")}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["plain", "ladder", "rate", "disks", "events", "silence"])
def test_a_preview_is_what_evaluation_really_raised(acme, rules, kind, seed):  # noqa: F811
    dice = random.Random(seed)  # noqa: S311
    rule = RULES[kind]()
    slots = [NOW + number * 30 * SECOND for number in range(SLOTS)]
    level = dict.fromkeys(AGENTS, 50.0)
    sent = 0.0
    for number, slot in enumerate(slots):
        for host, agent in AGENTS.items():
            level[host] = min(100, max(0, level[host] + dice.uniform(-30, 30)))
            sent += dice.uniform(0, 3000)
            if dice.random() < (0.3 if kind == "silence" else 0.05):
                continue  # a report that was lost
            lines = [log(slot, "error", f"It failed {dice.random()}", f"{host}{number}{n}")
                     for n in range(dice.choice([0, 0, 0, 1, 2]))]  # fmt: skip
            send(
                acme,
                slot - dice.randint(0, 9) * SECOND,
                cpu(level[host]),
                point("disk", {"percent": level[host]}, mount="/"),
                point("disk", {"percent": 100 - level[host]}, mount="/var"),
                point("network", {"sent_bytes": sent}, interface="eth0"),
                agent=agent,
                host=host,
                events=lines,
            )
        evaluation.evaluate(slot)
    shown = previews.over_slots(acme, rule, slots)
    hosts = dict(Alert.objects.values_list("fingerprint", "server__host"))
    really: list[tuple[str, float, float | None]] = []
    open_since: dict[str, float] = {}
    for one in Judgement.objects.filter(decision__in=["opens", "recovers"]):
        if one.decision == "opens":
            open_since[one.fingerprint] = one.at.timestamp()
        else:
            began = open_since.pop(one.fingerprint)
            really.append((hosts[one.fingerprint], began, one.at.timestamp()))
    really += [(hosts[name], began, None) for name, began in open_since.items()]
    told = [(one.host, one.opened_at, one.ended_at) for one in shown.alerts]
    assert sorted(told, key=str) == sorted(really, key=str)
    assert shown.count == len(really)


RULES = {
    "plain": lambda: make_rule(window=MINUTE, hold=MINUTE),
    "ladder": lambda: make_rule(
        window=2 * MINUTE,
        aggregation="p90",
        thresholds={"warning": 60, "critical": 90},
        recovery=45,
        recovery_hold=MINUTE,
    ),
    "rate": lambda: make_rule(
        measurement="network",
        field="sent_bytes",
        aggregation="rate",
        thresholds={"info": 100},
        window=MINUTE,
    ),
    "disks": lambda: make_rule(
        measurement="disk", tags={"mount": {"not": ["/"]}}, window=MINUTE, aggregation="last"
    ),
    "events": lambda: Rule.objects.create(
        name="Errors",
        kind="event",
        aggregation="count",
        words="failed",
        comparison=">=",
        thresholds={"error": 3},
        window=2 * MINUTE,
    ),
    "silence": lambda: Rule.objects.create(
        name="Silent", kind="silence", aggregation="last", thresholds={"critical": 0}
    ),
}


def test_a_preview_stores_nothing_and_is_shown_on_the_page(acme, rules, bob, client):  # noqa: F811
    for minutes in range(30):
        at = NOW - minutes * MINUTE
        send(acme, at, cpu(95 if minutes < 10 else 5))
    client.force_login(bob)
    form = {
        "name": "", "kind": "metric", "measurement": "cpu", "field": "percent",
        "aggregation": "avg", "window": "1 min", "comparison": ">", "warning": "80",
        "span": "24h", "rule": "",
    }  # fmt: skip
    page = client.post("/o/acme/rules/preview/", form).content.decode()
    assert "1 alert in the last 24 hours" in page
    assert "still open" in page
    assert "&quot;spans&quot;:[{" in page
    with in_schema(acme.schema_name):
        assert not Rule.objects.exists()
        assert not Alert.objects.exists()
    wrong = client.post("/o/acme/rules/preview/", {**form, "warning": ""}).content.decode()
    assert "Give a limit for at least one severity." in wrong


def test_programs_preview_a_rule_too(acme, rules, bob, client):  # noqa: F811
    send(acme, NOW, cpu(95))
    client.force_login(bob)
    body = {"name": "X", "measurement": "cpu", "field": "percent", "thresholds": {"warning": 80}}
    url = "/o/acme/api/v1/rules/preview/"
    answer = client.post(f"{url}?span=7d", body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert answer.json()["servers"] == 1
    assert answer.json()["end"] - answer.json()["start"] == timedelta(days=7).total_seconds()
    refused = client.post(f"{url}?span=1y", body, content_type="application/json")
    assert refused.json()["type"] == "/problems/no-such-span"
