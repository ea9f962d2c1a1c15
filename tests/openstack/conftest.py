"""An agent at work on the cloud's host, and a server that it reports to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.conftest import KEY, ReportServer
from tests.openstack import host
from tests.openstack.layer import REPOSITORY

INTERVAL = 5.0
#: Of what OpenStack stands on; OpenStack's own services carry their project in the name.
PROJECTS = {
    "mariadb": "mariadb",
    "rabbitmq-server": "rabbitmq",
    "memcached": "memcached",
    "haproxy": "haproxy",
}


def project_of(name: str) -> str:
    return PROJECTS.get(name, name.partition("-")[0])


class AtWork:
    """A real agent process, and all that it has told its server."""

    def __init__(self, folder: Path, interval: float = INTERVAL, **sections: str) -> None:
        self.server = ReportServer()
        held = json.dumps({"held": True, "until": 1.0, "seconds": 900.0}).encode()
        self.server.refuse = lambda body: (200, {}, held) if "cloud" in body else None
        self.interval = interval
        self.state = folder / "state"
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'[agent]\nserver = "{self.server.url}"\nkey = "{KEY}"\n'
            f'state_dir = "{self.state}"\ninterval = {interval}\n'
            + "".join(f"[{name}]\n{text}\n" for name, text in sections.items())
        )
        self.config.chmod(0o600)
        self._log = (folder / "agent.log").open("wb")
        self.process = subprocess.Popen(
            [*sentinella(self.config), "run"],
            cwd=REPOSITORY, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def reports(self) -> list[dict[str, Any]]:
        return sorted(self.server.reports.values(), key=lambda report: report["sequence"])

    def states(self) -> dict[str, dict[str, Any]]:
        """The newest state of each service."""
        return {
            state["name"]: state
            for report in self.reports()
            for state in report.get("services", [])
        }

    def when(self, name: str, state: str, since: float) -> float | None:
        """The time of the first report since then that has the service in this state."""
        for report in self.reports():
            if report["at"] >= since and any(
                (one["name"], one["state"]) == (name, state) for one in report.get("services", [])
            ):
                found: float = report["at"]
                return found
        return None

    def points(self, measurement: str, since: float = 0.0) -> list[dict[str, Any]]:
        return [
            point
            for report in self.reports()
            if report["at"] >= since
            for point in report.get("points", [])
            if point["measurement"] == measurement
        ]

    def events(self, since: float = 0.0) -> list[dict[str, Any]]:
        return [event for event in self.server.events() if event["at"] >= since]

    def wait_for(self, what: str, condition: Callable[[], Any], seconds: float) -> None:
        """Wait for reports that make it true."""
        if not self.server.wait_for(lambda: bool(condition()), seconds):
            log = Path(self._log.name).read_text()[-3000:]
            pytest.fail(f"waited {seconds} s in vain for {what}\n{log}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.server.close()
        self._log.close()


def sentinella(config: Path) -> list[str]:
    return [sys.executable, "-m", "agent_client.cli", "--config", str(config)]


@pytest.fixture(autouse=True)
def cloud() -> None:
    """These tests run on the host of `python -m tests.openstack up`, and begin with all of it.

    A service that starts while another is stopped may end by itself: each test starts what ended.
    """
    try:
        states = host.order("status")
    except host.Failed as problem:
        pytest.exit(f"{problem}; then: make test-openstack", returncode=4)
    stopped = [name for name, running in states.items() if not running]
    for name in stopped:
        host.order("start", name)


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtWork]:
    """An agent that was told nothing of the services, with the cloud's credentials."""
    made = AtWork(
        tmp_path_factory.mktemp("agent"),
        openstack='cloud = "here"\nclouds_file = "/etc/openstack/clouds.yaml"\ninterval = 30',
    )
    made.wait_for("two reports", lambda: len(made.server.reports) >= 3, 60)
    yield made
    made.close()


@pytest.fixture
def stopped() -> Iterator[Callable[[str], float]]:
    """Stops services and says when they had ended; starts them again afterwards."""
    names: list[str] = []

    def stop(name: str) -> float:
        names.append(name)
        host.order("stop", name)
        return time.time()

    yield stop
    for name in reversed(names):
        host.order("start", name)


def openstack(*words: str) -> Any:
    """What the `openstack` command of Debian's package prints, as JSON."""
    done = subprocess.run(
        ["/usr/bin/openstack", *words, "-f", "json"],
        env={**os.environ, "OS_CLOUD": "here"}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)
