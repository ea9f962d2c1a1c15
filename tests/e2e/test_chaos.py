"""A minute of kills under alert load, or five by `make test-chaos`: nothing lost, nothing doubled.

Ten a minute of worker, notifier, beat, web and Valkey are killed with `kill -9`, a second beat runs
by mistake, and a second notifier is stopped in the middle and goes on after its leases are over.
Machines begin at random moments, and each goes the whole way: it opens, becomes worse, is resolved
by hand, opens again because it still holds, and is over. What must have been told is what was done.
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
from collections import Counter, defaultdict
from datetime import datetime
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from tests.e2e.product import REPOSITORY, Machine, Product, until

pytestmark = pytest.mark.alone

PARTS = ("worker", "notifier", "beat", "web", "valkey")
EVERY = 6.0  # seconds between two kills
HOLD = 30.0  # seconds; longer than any pause between two kills
HEALED = 60.0
MACHINES_A_MINUTE = 10
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
    """Kills at regular times: parts in an order of chance, none again before all had their turn."""

    def __init__(self, product, seed):
        self.product, self.chance = product, random.Random(seed)  # noqa: S311  a game of chance
        self.left = []  # of this round
        self.kills = []  # when, and what

    def strike(self):
        self.left = self.left or self.chance.sample(PARTS, len(PARTS))
        name = self.left.pop()
        pid = self.product.instance.pids.get(name)
        with contextlib.suppress(ProcessLookupError):
            if pid:
                self.kills.append((time.time(), name))
                os.kill(pid, signal.SIGKILL)


class Trouble:
    """A machine that goes its whole way, one step when the one before was seen."""

    def __init__(self, organization, machine, begins):
        self.organization, self.machine, self.begins = organization, machine, begins
        self.server = organization.server(machine.host)["id"]
        self.incident = None
        self.is_over = False

    def step(self, alerts, incidents):
        """Do what is next; `alerts` and `incidents` are what the product shows now."""
        found = [one["incident"] for one in alerts if one["server"] == self.server]
        self.incident = found[0] if found else None
        happened = Counter(
            event["kind"] for event in incidents.get(self.incident, {"events": []})["events"]
        )
        if happened["resolved"] == 2:
            self.is_over = True
        elif happened["reopened"]:
            self._says(5)
        elif happened["raised"] and not happened["resolved"]:
            self.organization.post(f"incidents/{self.incident}/resolve/")
        elif happened["opened"]:
            self._says(95)
        elif time.monotonic() >= self.begins:
            self._says(70)
        self.machine.send()

    def _says(self, percent):
        if self.machine.percent != percent:
            self.machine.percent = percent
            self.machine.report()


def let_happen(organization, troubles, until_):
    """Let each of these go its way, while the product answers and while it does not."""
    while not all(one.is_over for one in troubles) and time.monotonic() < until_:
        with contextlib.suppress(urllib3.exceptions.HTTPError, AssertionError):
            alerts = [one for one in every(organization, "alerts/") if one["title"] == "Busy"]
            incidents = {one["id"]: one for one in every(organization, "incidents/")}
            for one in troubles:
                one.step(alerts, incidents)
        threading.Event().wait(0.5)


def every(organization, path):
    """All rows of a list, page by page."""
    answer = organization.get(path, size=500)
    rows = list(answer["results"])
    while answer["next"]:
        (cursor,) = parse_qs(urlsplit(answer["next"]).query)["cursor"]
        answer = organization.get(path, size=500, cursor=cursor)
        rows += answer["results"]
    return rows


class Told:
    """What one channel's receiver got: each transition, by the keys it came under."""

    def __init__(self, hooks):
        self.keys, self.first, self.times = defaultdict(set), {}, defaultdict(list)
        for hook in sorted(hooks, key=lambda one: one.at):
            data = hook.body["data"]
            self.times[hook.key].append(hook.at)
            told = [{**data, "transitions": [data["transition"]]}]
            if data["transition"] == "digest":
                told = data["incidents"]
            for one in told:
                for place, transition in enumerate(one["transitions"]):
                    what = one["incident"], transition
                    self.keys[what].add(hook.key)
                    self.first.setdefault(what, (hook.at, place))

    def doubled_without_a_kill(self, kills):
        """Messages that came once more though nothing was killed since the first time."""
        left = sorted(kills)
        again = [(at, times[0]) for times in self.times.values() for at in times[1:]]
        for at, first in sorted(again):
            cause = next((one for one in left if first - 1 < one < at), None)
            if cause is None:
                return again
            left.remove(cause)
        return []


@pytest.mark.parametrize("seconds", [60, pytest.param(300, marks=pytest.mark.chaos)])
def test_nothing_is_lost_and_nothing_doubled_while_parts_are_killed(
    product, slack, figure, seconds
):
    chance = random.Random(seconds)  # noqa: S311
    organization = product.bootstrap(f"chaos-{uuid.uuid4().hex[:6]}")
    paths = {name: f"{organization.slug}-{name}" for name in ("one", "two")}
    channels = {
        name: organization.post(
            "channels/", name=name, kind="webhook", config={"url": f"{slack.url}/{path}"}
        )["id"]
        for name, path in paths.items()
    }
    machines = [Machine(organization, f"c-{n}") for n in range(MACHINES_A_MINUTE * seconds // 60)]
    held = Machine(organization, "held")
    for machine in (*machines, held):
        machine.says(5)
    ladder = {"warning": 60, "critical": 90}
    organization.rule("Busy", thresholds=ladder, window=600)
    number = organization.server("held")["id"]
    organization.rule("Long", thresholds={"error": 97}, hold=HOLD, server=number, window=600)
    now = time.monotonic()
    troubles = [
        Trouble(organization, one, now + chance.uniform(0, seconds / 2)) for one in machines
    ]
    chaos, over = Chaos(product, seconds), threading.Event()
    deadline = now + seconds + 3 * HEALED
    load = threading.Thread(target=let_happen, args=(organization, troubles, deadline), name="load")
    schedule = str(product.state_dir / "second-beat")
    notifier = ("worker", "-P", "threads", "-c", "4", "-Q", "notify", "-n", "second@%h")
    with (
        beside(product, "beat", "-s", schedule),
        beside(product, *notifier) as second,
        held.reporting(every=1.0),
    ):
        began = held.says(99)
        load.start()
        asleep_from = began + 10
        for number in range(1, round(seconds / EVERY)):
            over.wait(max(0.0, began + number * EVERY - time.time()))
            chaos.strike()
            now = time.time()
            if now >= asleep_from:
                is_asleep = now < asleep_from + ASLEEP
                second.send_signal(signal.SIGSTOP if is_asleep else signal.SIGCONT)
        second.send_signal(signal.SIGCONT)
        until(product.is_whole, HEALED, "every component is up")
        (long,) = until(lambda: organization.alerts("Long"), HEALED, "what held long is open")
        held.percent = 5
        load.join(3 * HEALED)
        assert all(one.is_over for one in troubles), [one.machine.host for one in troubles]
        until(
            lambda: all(one["resolved_at"] for one in every(organization, "incidents/")),
            HEALED,
            "all is over",
        )
        until(
            lambda: not organization.get("notifications/", state="waiting")["results"],
            2 * HEALED,
            "all is told",
        )
    waited = datetime.fromisoformat(long["opened_at"]).timestamp() - began
    judgements = organization.get(f"alerts/{long['id']}/judgements/")
    decisions = [one["decision"] for one in judgements]
    assert waited >= HOLD - 1
    assert decisions.count("begins to hold") == 1, "its time did not begin anew"

    ways = {
        one.incident: ["raised:1", "resolved:1", "reopened:1", "resolved:2"] for one in troubles
    }
    ways[long["incident"]] = ["resolved:1"]
    happened = {
        (incident, transition)
        for incident, way in ways.items()
        for transition in (f"opened:{incident}", *way)
    }
    assert len(ways) == len(machines) + 1, "each machine has an incident of its own"
    notifications = every(organization, "notifications/")
    kills = [at for at, _ in chaos.kills] + [asleep_from]
    together, twice = 0, 0
    for name, channel in channels.items():
        told = Told(slack.got(paths[name]))
        rows = {
            (one["incident"], one["transition"]): one
            for one in notifications
            if one["channel"] == channel and one["incident"] in ways
        }
        assert rows.keys() == happened, "each transition has its message, and nothing else has"
        for what, row in rows.items():
            assert row["state"] == "sent", row
            together += bool(row["batch"])
            assert told.keys[what] == {row["batch"] or row["key"]}, "it came, under its one key"
        for incident, way in ways.items():
            came = [told.first[incident, one] for one in (f"opened:{incident}", *way)]
            assert came == sorted(came), "in the order in which it happened"
        assert told.doubled_without_a_kill(kills) == []
        twice += sum(len(times) - 1 for times in told.times.values())
    figure(
        f"{seconds} s of chaos: {dict(Counter(name for _, name in chaos.kills))} killed,"
        f" {len(happened)} transitions of {len(ways)} incidents to {len(channels)} channels,"
        f" {together} of them in digests, {twice} messages twice;"
        f" what must hold for {HOLD:.0f} s opened after {waited:.0f} s"
    )
