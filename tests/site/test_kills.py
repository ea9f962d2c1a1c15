"""The real agent against the real server, and `kill -9` of both: each line and sample once.

What an agent has said that it keeps, and every line of its log, is in the store afterwards, however
often the agent, web with its committer, the broker and the database were killed on the way.
"""

from __future__ import annotations

import collections
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from agent_client.inbox import NotRunning, Unstorable, hand_over
from agent_client.spool import peek
from sentinel_site import instance
from tests.e2e.product import REPOSITORY, Organization, Product, until

pytestmark = pytest.mark.chaos

KILLS = 20
OTHERS = ("web", "valkey", "web", "postgres", "web", "valkey")
HEALED = 120.0  # seconds in which everything has arrived once nobody kills any more


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organization]:
    product = Product(tmp_path_factory.mktemp("kills") / "state", 9, "--no-agent")
    try:
        product.start()
        yield product.bootstrap("acme")
    finally:
        product.stop()


class Agent:
    """An agent that follows one log; whoever kills it starts it again."""

    def __init__(self, folder: Path, acme: Organization) -> None:
        self.state_dir = folder / "state"
        self.log = folder / "nova-api.log"
        self.log.touch()
        self._output = folder / "agent.log"
        self._config = folder / "agent.toml"
        self._config.touch(mode=0o600)
        self._config.write_text(
            f'[agent]\nserver = "{acme.product.url}"\nkey = "{acme.ingest_key}"\n'
            f'state_dir = "{self.state_dir}"\ninterval = 1\nhost = "killed-1"\ndiscovery = false\n'
            f'[logs.nova-api]\npath = "{self.log}"\nlevel = "debug"\nlimit = 0\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent_client.cli", "run", "--config", str(self._config)],
                cwd=REPOSITORY,
                stdout=output,
                stderr=output,
            )

    def stop(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)

    def waiting(self) -> int:
        seen = peek(str(self.state_dir))
        return seen[0].reports if seen is not None else 0

    def said(self) -> str:
        return self._output.read_text()


class Script:
    """Somebody who hands over numbered samples and events and notes what was taken."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.kept: list[int] = []

    def work(self, stop: threading.Event) -> None:
        for number in itertools.count(1):
            if stop.wait(0.05):
                return
            sample = {
                "measurement": "handed",
                "fields": {"number": number},
                "tags": {"n": f"{number}"},
            }
            event = {"message": f"handed {number}", "service": "script"}
            try:
                hand_over(str(self._agent.state_dir), [sample, event], timeout=10)
            except (NotRunning, Unstorable, OSError):
                continue  # it was just killed: what became of this one is not known
            self.kept.append(number)


def write(log: Path, stop: threading.Event, written: list[int]) -> None:
    """Numbered lines, some two hundred a second."""
    with log.open("ab", buffering=0) as file:
        for number in itertools.count(1):
            at = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"{at}.000 7 INFO nova.api [-] line {number}\n".encode())
            written.append(number)
            if stop.wait(0.005):
                return


def stored(acme: Organization) -> tuple[list[int], list[int], list[int]]:
    """Numbers of the lines, of the events handed over and of the samples that are in the store."""
    url = instance.environment(acme.product.state_dir)["DATABASE_URL"]
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('sentinella.tenants', id::text, false) FROM accounts_tenant"
            " WHERE slug = 'acme'"
        )
        found: dict[str, list[int]] = {"line": [], "handed": []}
        cursor.execute("SELECT message FROM metrics_event WHERE message ~ '^(line|handed) [0-9]+$'")
        for (message,) in cursor.fetchall():
            kind, _, number = message.partition(" ")
            found[kind].append(int(number))
        cursor.execute(
            "SELECT columns, values FROM metrics_points JOIN metrics_set"
            " ON metrics_set.tenant_id = metrics_points.tenant_id AND metrics_set.id = set_id"
            " WHERE 'handed' = ANY(measurements)"
        )
        samples = [
            int(value)
            for columns, values in cursor.fetchall()
            for (measurement, _, _), value in zip(columns, values, strict=True)
            if measurement == "handed"
        ]
    return found["line"], found["handed"], samples


def twice(numbers: list[int]) -> list[int]:
    return [number for number, times in collections.Counter(numbers).items() if times > 1]


def test_whoever_is_killed_each_line_and_sample_is_stored_once(
    acme: Organization, tmp_path: Path, record_property: Any
) -> None:
    dice = random.Random(7)  # noqa: S311 - the same kills each time
    agent = Agent(tmp_path, acme)
    script, written, stop = Script(agent), list[int](), threading.Event()
    agent.start()
    threads = [
        threading.Thread(target=write, args=(agent.log, stop, written)),
        threading.Thread(target=script.work, args=(stop,)),
    ]
    try:
        until(lambda: acme.server("killed-1"), 60, "the agent has reported")
        for thread in threads:
            thread.start()
        others = dict(zip(range(1, KILLS, KILLS // len(OTHERS)), OTHERS, strict=False))
        for turn in range(KILLS):
            before = len(script.kept)
            until(lambda before=before: len(script.kept) > before, 60, "the agent takes samples")
            stop.wait(dice.uniform(0.0, 2.5))
            agent.stop(signal.SIGKILL)
            agent.start()
            if turn in others:
                acme.product.kill(others[turn])
        until(lambda: len(script.kept) > before + 5, 60, "the agent takes samples")
        stop.set()
        for thread in threads:
            thread.join(30)
        until(acme.product.is_whole, HEALED, "every part of the server is back")
        until(
            lambda: not agent.waiting() and len(set(stored(acme)[0])) >= len(written),
            HEALED,
            "everything has arrived",
        )
    finally:
        stop.set()
        agent.stop(signal.SIGTERM)
    lines, events, samples = stored(acme)
    assert sorted(lines) == written
    assert twice(events) == []
    assert twice(samples) == []
    assert set(script.kept) - set(events) == set()
    assert set(script.kept) - set(samples) == set()
    assert "Traceback" not in agent.said()
    record_property(
        "figure",
        f"{KILLS} kills of the agent, {len(OTHERS)} of the server: {len(lines)} lines and "
        f"{len(samples)} samples, each once",
    )
