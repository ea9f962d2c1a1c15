"""A minute of kills under alert load, or five by `make test-chaos`: nothing lost, nothing doubled.

Ten a minute of worker, notifier, beat, web and Valkey are killed with `kill -9`, a second beat runs
by mistake, and a second notifier is stopped in the middle and goes on after its leases are over.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from datetime import datetime

import pytest

from tests.e2e.product import REPOSITORY, TICK, Machine, Product, until

pytestmark = pytest.mark.alone

PARTS = ("worker", "notifier", "beat", "web", "valkey")
EVERY = 6.0  # seconds between two kills
HOLD = 30.0  # seconds; longer than any pause between two kills
HEALED = 60.0
MACHINES_A_MINUTE = 30
ASLEEP = 35.0  # seconds; a lease is 30


@pytest.fixture
def product(mailbox, tmp_path):
    """One of its own: others' tests want theirs alive."""
    it = Product(tmp_path / "state", mailbox.port, "--no-agent")
    try:
        it.start()
        yield it
    finally:
        it.stop()


@contextlib.contextmanager
def beside(product, *arguments):
    """One more process of Celery's, started by hand beside the product's own."""
    environ = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "sentinel_site", *arguments],
        cwd=REPOSITORY,
        env={**environ, **product.instance.environ, "STATE_DIR": str(product.state_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(20)


class Chaos:
    """Kills at regular times, of parts taken at random."""

    def __init__(self, product, seed):
        self.product, self.chance = product, random.Random(seed)  # noqa: S311  a game of chance
        self.kills = Counter()

    def strike(self):
        name = self.chance.choice(PARTS)
        pid = self.product.instance.pids.get(name)
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
                self.kills[name] += 1


def breach_and_recover(machines, chance, seconds, over):
    """Each machine breaches once and recovers once, at random moments of this time."""
    began = time.monotonic()
    plan = []
    for machine in machines:
        start = chance.uniform(0, seconds * 0.7)
        plan += [(start, machine, 95), (start + chance.uniform(12, seconds * 0.3), machine, 5)]
    for at, machine, percent in sorted(plan, key=lambda step: step[0]):
        over.wait(max(0.0, began + at - time.monotonic()))
        machine.percent = percent
        machine.report()
        for one in machines:
            one.send()


def every(organization, path):
    """All rows of a list, page by page."""
    answer = organization.get(path, size=500)
    rows = list(answer["results"])
    while answer["next"]:
        cursor = answer["next"].split("cursor=")[1].split("&")[0]
        answer = organization.get(path, size=500, cursor=cursor)
        rows += answer["results"]
    return rows


@pytest.mark.parametrize("seconds", [60, pytest.param(300, marks=pytest.mark.chaos)])
def test_nothing_is_lost_and_nothing_doubled_while_parts_are_killed(
    product, slack, figure, seconds
):
    chance = random.Random(seconds)  # noqa: S311
    organization = product.bootstrap(f"chaos-{uuid.uuid4().hex[:6]}")
    path = f"{organization.slug}-{uuid.uuid4().hex[:6]}"
    organization.post("channels/", name="W", kind="webhook", config={"url": f"{slack.url}/{path}"})
    machines = [Machine(organization, f"c-{n}") for n in range(MACHINES_A_MINUTE * seconds // 60)]
    held = Machine(organization, "held")
    for machine in (*machines, held):
        machine.says(5)
    organization.rule("Busy", window=600)
    organization.rule("Long", hold=HOLD, server=organization.server("held")["id"], window=600)
    chaos, over = Chaos(product, seconds), threading.Event()
    load = threading.Thread(
        target=breach_and_recover, args=(machines, chance, seconds, over), name="load"
    )
    schedule = str(product.state_dir / "second-beat")
    notifier = ("worker", "-P", "threads", "-c", "4", "-Q", "notify", "-n", "second@%h")
    with (
        beside(product, "beat", "-s", schedule),
        beside(product, *notifier) as second,
        held.reporting(every=1.0),
    ):
        began = held.says(95)
        load.start()
        asleep_from = began + 10
        for number in range(1, round(seconds / EVERY)):
            over.wait(max(0.0, began + number * EVERY - time.time()))
            chaos.strike()
            now = time.time()
            if now >= asleep_from:
                is_asleep = now < asleep_from + ASLEEP
                second.send_signal(signal.SIGSTOP if is_asleep else signal.SIGCONT)
        load.join(seconds)
        second.send_signal(signal.SIGCONT)
        until(product.is_whole, HEALED, "every component is up")
        for machine in machines:
            machine.percent = 5
            machine.report()
            until(machine.send, 30, f"the report of {machine.host} is acknowledged")
        (long,) = until(lambda: organization.alerts("Long"), HEALED, "what held long is open")
        held.percent = 5
        until(
            lambda: all(one["resolved_at"] for one in every(organization, "alerts/")),
            HEALED,
            "all is over",
        )
        until(
            lambda: not organization.get("notifications/", state="waiting")["results"],
            2 * HEALED,
            "all is told",
        )
    opened = datetime.fromisoformat(long["opened_at"]).timestamp()
    assert HOLD - 1 <= opened - began <= HOLD + TICK + HEALED / 2, "its time did not begin anew"

    hooks = slack.got(path)
    keys = Counter(hook.key for hook in hooks)
    (channel,) = [c["id"] for c in organization.get("channels/")["results"] if c["name"] == "W"]
    told = {
        (one["incident"], one["transition"].split(":")[0]): one
        for one in every(organization, "notifications/")
        if one["channel"] == channel
    }
    happened = {
        (incident["id"], event["kind"])
        for incident in every(organization, "incidents/")
        for event in incident["events"]
        if event["kind"] in ("opened", "resolved")
    }
    breached = {alert["server"] for alert in every(organization, "alerts/")}
    doubled = {key: count - 1 for key, count in keys.items() if count > 1}
    kills = sum(chaos.kills.values()) + 1  # and one was asleep
    figure(
        f"{seconds} s of chaos: {dict(chaos.kills)} killed, {len(happened)} transitions of "
        f"{len(breached)} servers in {len(keys)} messages, {sum(doubled.values())} twice"
    )
    assert len(breached) >= len(machines) * 0.9, "the load was there"
    assert happened <= told.keys(), "each transition has its message"
    assert all(one["state"] == "sent" for one in told.values())
    assert {one["batch"] or one["key"] for one in told.values()} == set(keys)
    assert sum(doubled.values()) <= kills
    assert len({alert["id"] for alert in every(organization, "alerts/")}) == len(breached) + 1
