"""A real agent whose way to us is cut: one alert, and nothing of the time between is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.e2e.product import REPOSITORY, TICK, until
from tests.e2e.receivers import Cable

INTERVAL = 1.0  # seconds; the least that an agent takes
SILENT_AFTER = 3 * INTERVAL + 30.0
HOST = "lonely-1"


class Agent:
    """The agent as it is installed: a process with a configuration of its own."""

    def __init__(self, folder, url, key):
        self.config = folder / "agent.toml"
        self.config.touch(mode=0o600)
        self.config.write_text(
            f'[agent]\nserver = "{url}"\nkey = "{key}"\nstate_dir = "{folder / "state"}"\n'
            f'interval = {INTERVAL:g}\nhost = "{HOST}"\n'
        )
        self.log = folder / "agent.log"
        self.process = None

    def command(self, verb, *more):
        return [
            *(sys.executable, "-m", "agent_client.cli", verb),
            *("--config", str(self.config), *more),
        ]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("run"), cwd=REPOSITORY, stdout=log, stderr=log
            )

    def stop(self, number):
        os.kill(self.process.pid, number)
        self.process.wait(20)

    def status(self):
        """What `sentinella status` says; it fails when there is a problem, and says so anyway."""
        done = subprocess.run(
            self.command("status", "--json"), cwd=REPOSITORY, capture_output=True, check=False
        )
        return json.loads(done.stdout)


@pytest.fixture
def cable(product):
    with Cable(product.instance.port).connected() as it:
        yield it


@pytest.fixture
def agent(cable, organization, tmp_path):
    it = Agent(tmp_path, f"http://127.0.0.1:{cable.port}", organization.ingest_key)
    it.start()
    yield it
    if it.process.poll() is None:
        it.stop(15)


def test_silence_is_one_alert_and_the_spool_fills_the_gap_even_after_a_kill(
    agent, cable, organization, owner, mailbox, slack, figure
):
    server = organization.server(HOST)["id"]
    heading = f"Server silent on {HOST}"
    owner.page.reload()
    owner.is_live()
    row = owner.page.locator("#state article.inc", has_text="Server silent")

    cut = time.time()
    cable.pull_out()
    until(lambda: agent.status()["waiting"]["reports"] >= 5, 30, "reports wait in the spool")
    agent.stop(9)
    before_kill = agent.status()["waiting"]["reports"]
    row.wait_for(timeout=1000 * (SILENT_AFTER + TICK + 10))
    figure(f"server silent on screen {time.time() - cut - SILENT_AFTER:.1f} s after it was")
    until(lambda: mailbox.to(organization.email, heading), 10, "a mail says so")
    assert organization.server(HOST)["status"] == "silent"

    agent.start()
    until(lambda: agent.status()["waiting"]["reports"] >= before_kill + 3, 30, "the spool goes on")
    waiting = agent.status()["waiting"]["reports"]
    back = time.time()
    cable.put_in()
    row.wait_for(state="detached", timeout=60_000)
    figure(f"server silent over on screen {time.time() - back:.1f} s after the way was free")
    until(lambda: agent.status()["waiting"]["reports"] == 0, 60, "the spool is empty")

    assert organization.stored(server, cut - INTERVAL, back + INTERVAL) >= waiting
    assert organization.server(HOST)["status"] == "up"
    (alert,) = organization.alerts("Server silent")
    assert alert["resolved_at"]
    assert not alert["resolved_by_hand"]
    until(lambda: len(mailbox.to(organization.email, heading)) == 2, 10, "a mail that it is over")
    assert mailbox.told(organization.email, heading) == [
        f"Critical: {heading}",
        f"Resolved: {heading}",
    ]
    until(
        lambda: (
            [hook.text for hook in slack.got(organization.slug, heading)]
            == [f"Critical: {heading}", f"Resolved: {heading}"]
        ),
        10,
        "both in Slack, once",
    )
