"""Configuration while the agent runs: read again on SIGHUP, or asked for by the server."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_client import remote
from agent_client.agent import Agent
from agent_client.bell import Bell, is_ready
from agent_client.config import Config, load
from agent_client.remote import Settings
from agent_client.status import gather

from .conftest import KEY, ReportServer, problem, until

ROOT = Path(__file__).parents[2]


class Running:
    """An agent as an operator starts it, whose configuration changes under it."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent_client.cli", "-c", str(self.config), "run"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def reload(self, text: str) -> None:
        assert self.process is not None
        self.config.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> str:
        """What it logged."""
        assert self.process is not None
        self.process.terminate()
        _, said = self.process.communicate(timeout=20)
        return said


@pytest.fixture
def running(write_config: Callable[..., Path], server: ReportServer) -> Iterator[Running]:
    agent = Running(write_config(server.url))
    agent.start()
    assert server.wait_for(lambda: len(server.reports) >= 2)
    yield agent
    assert agent.process is not None
    if agent.process.poll() is None:
        agent.process.kill()
        agent.process.communicate()


def in_order(server: ReportServer) -> list[dict[str, Any]]:
    """All but the goodbye."""
    said = [report for report in server.reports.values() if "goodbye" not in report]
    return sorted(said, key=lambda report: report["sequence"])


def newest(server: ReportServer) -> dict[str, Any]:
    return in_order(server)[-1]


def measured(report: dict[str, Any]) -> set[str]:
    return {point["measurement"] for point in report.get("points", [])}


# SIGHUP


def test_status_shows_a_mended_key_before_the_next_cycle(
    write_config: Callable[..., Path], server: ReportServer
) -> None:
    server.refuse = lambda body: problem(403)
    config = write_config(server.url, interval=3600)
    agent = Running(config)
    agent.start()

    def said() -> dict[str, Any]:
        return gather(load(str(config), {}))

    until(lambda: any("refuses this key (403)" in one for one in said()["problems"]))
    assert any("`sentinella enrol`" in one for one in said()["problems"])
    server.refuse = lambda body: None
    agent.reload(config.read_text().replace(KEY, "snt_new_0123456789"))
    until(lambda: said()["problems"] == [])
    assert said()["cycles"] == 1
    agent.stop()


def test_a_changed_configuration_counts_at_once_and_no_sample_is_lost(
    server: ReportServer, running: Running, logs: Path
) -> None:
    (logs / "nova.log").write_text("2026-11-22 10:00:00.000 1 ERROR nova [-] before\n")
    assert server.wait_for(lambda: "before" in server.messages())
    text = running.config.read_text().replace("interval = 1", "interval = 2")
    running.reload(text + "[collectors]\nswap = false\n[services.nothing-here]\n")
    assert server.wait_for(lambda: newest(server)["interval"] == 2)
    (logs / "nova.log").open("a").write("2026-11-22 10:00:00.000 1 ERROR nova [-] after\n")
    assert server.wait_for(lambda: "after" in server.messages())
    assert server.wait_for(lambda: "swap" not in measured(newest(server)))
    running.stop()
    reports = in_order(server)
    assert [report["sequence"] for report in reports] == list(range(1, len(reports) + 1))
    assert all("cpu" in measured(report) for report in reports), "rates keep their baseline"
    assert all(b["at"] - a["at"] < 3.5 for a, b in pairwise(reports))
    assert "nothing-here" in {one["name"] for one in newest(server)["services"]}
    assert server.messages().count("before") == 1
    assert server.messages().count("the configuration was read again") == 1


def test_a_longer_interval_does_not_wait_for_the_next_report_nor_a_shorter_one(
    server: ReportServer, write_config: Callable[..., Path]
) -> None:
    agent = Running(write_config(server.url, interval=3600))
    agent.start()
    try:
        assert server.wait_for(lambda: len(server.reports) >= 1)
        agent.reload(agent.config.read_text().replace("interval = 3600", "interval = 1"))
        assert server.wait_for(lambda: len(server.reports) >= 3)
    finally:
        agent.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + "[agnt]\n", "is no section"),
        (lambda text: text.replace("/state", "/elsewhere"), "state_dir cannot change"),
        (lambda text: text.replace(f'key = "{KEY}"', ""), "no key"),
    ],
)
def test_a_bad_configuration_is_told_and_the_old_one_goes_on(
    server: ReportServer, running: Running, change: Callable[[str], str], said: str
) -> None:
    good = running.config.read_text()
    running.reload(change(good))
    assert server.wait_for(lambda: any(said in text for text in server.messages()))
    before = len(server.reports)
    assert server.wait_for(lambda: len(server.reports) >= before + 2), "it goes on"
    status = subprocess.run(
        [sys.executable, "-m", "agent_client.cli", "-c", str(running.config), "status"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert status.returncode in (1, 2), "2 where the very file is what is wrong"
    running.reload(good)
    assert server.wait_for(lambda: "the configuration was read again" in server.messages())
    logged = running.stop()
    assert "the old one goes on" in logged


def test_a_new_key_sends_what_the_old_one_could_not(server: ReportServer, running: Running) -> None:
    fresh = "snt_fresh_0123456789"
    server.refuse = lambda body: (
        None
        if server.requests[-1]["headers"]["Authorization"] == f"Bearer {fresh}"
        else problem(401)
    )
    before = len(server.reports)
    running.reload(running.config.read_text().replace(KEY, fresh))
    assert server.wait_for(lambda: len(server.reports) > before), "not after minutes of back-off"
    running.stop()


def test_it_stops_and_reloads_whatever_the_moment(server: ReportServer, running: Running) -> None:
    """A storm of signals in every moment of the loop: no deadlock, no lost stop."""
    assert running.process is not None
    for _ in range(200):
        running.process.send_signal(signal.SIGHUP)
        threading.Event().wait(0.002)
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 5
    assert running.process.returncode == 0


def test_a_bell_rings_whatever_number_its_descriptor_has() -> None:
    reading, writing = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, min(4096, hard) - 10)
    try:
        assert not is_ready(high, 0.01)
        os.write(writing, b"x")
        assert is_ready(high, 10)
    finally:
        for descriptor in (reading, writing, high):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_bell_that_rang_before_the_wait_ends_it() -> None:
    bell = Bell()
    bell.ring()
    began = time.monotonic()
    bell.wait(10)
    assert time.monotonic() - began < 5
    bell.wait(0)
    bell.close()
    bell.ring()


# Settings of the server


def asked(**more: Any) -> dict[str, Any]:
    return {
        "version": 1, "interval": None, "levels": {}, "levels_until": None, "collectors": {},
        **more,
    }  # fmt: skip


def with_consent(config: Path) -> Path:
    config.write_text(config.read_text().replace("[agent]\n", "[agent]\nremote = true\n"))
    return config


def test_what_the_server_asks_for_is_done_told_and_survives_a_restart(
    server: ReportServer, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    agent = Running(with_consent(write_config(server.url, interval=3600)))
    server.settings = asked(version=7, interval=5, collectors={"swap": False})
    agent.start()
    try:
        assert server.wait_for(lambda: newest(server)["interval"] == 5 if server.reports else False)
        report = newest(server)
        assert "swap" not in measured(report)
        assert report["specs"]["settings"] == {"remote": True, "version": 7}
        assert "settings 7 of the server are taken up" in server.messages()
    finally:
        agent.stop()
    server.settings = None
    before = len(server.reports)
    agent.start()
    try:
        assert server.wait_for(lambda: len(server.reports) > before)
        assert newest(server)["interval"] == 5
    finally:
        agent.stop()


def test_without_consent_nothing_is_taken_and_that_is_told(
    server: ReportServer, running: Running, tmp_path: Path
) -> None:
    server.settings = asked(interval=5, collectors={"cpu": False})
    before = len(server.reports)
    assert server.wait_for(lambda: len(server.reports) >= before + 2)
    running.stop()
    assert newest(server)["interval"] == 1
    assert "cpu" in measured(newest(server))
    assert in_order(server)[0]["specs"]["settings"] == {"remote": False}
    assert not (tmp_path / "state" / "settings.json").exists()


def test_info_for_half_an_hour_ends_by_itself(
    server: ReportServer, write_config: Callable[..., Path], logs: Path
) -> None:
    path = with_consent(write_config(server.url))
    path.write_text(path.read_text().replace('level = "debug"', 'level = "error"'))
    now = 1_800_000_000.0
    agent = Agent(load(str(path), {}), clock=lambda: now)
    log = logs / "nova.log"

    def cycle(line: str) -> list[str]:
        with log.open("a") as file:
            file.write(f"2026-11-22 10:00:00.000 1 INFO nova [-] {line}\n")
        agent.cycle()
        agent.sender.work(None, 10)
        return [text for text in server.messages() if text == line]

    assert cycle("one") == []
    server.settings = asked(levels={"default": "info"}, levels_until=now + 1800)
    assert cycle("two") == []
    assert cycle("three") == ["three"]
    now += 1801
    assert cycle("four") == []
    agent.close()


def test_settings_that_make_no_sense_change_nothing_and_are_told(
    server: ReportServer, write_config: Callable[..., Path]
) -> None:
    agent = Agent(load(str(with_consent(write_config(server.url))), {}))
    server.settings = asked(interval=5, levels={"default": "loud"})
    for _ in range(3):
        agent.cycle()
        agent.sender.work(None, 10)
    agent.close()
    assert agent.config.interval == 1
    said = [report["specs"]["settings"] for report in in_order(server) if "specs" in report]
    assert "loud" in said[-1]["error"]


@pytest.mark.parametrize(
    "said",
    [
        None, [], {}, {"version": "x"}, asked(interval=0), asked(interval=True),
        asked(levels=["info"]), asked(levels_until="soon"), asked(collectors={"cpu": 1}),
        asked(levels={"default": ["info"]}), asked(levels_until=float("nan")),
        asked(levels_until=10**400), asked(interval=float("inf")),
    ],
)  # fmt: skip
def test_only_whole_sense_is_parsed(said: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        remote.parse(said)


def test_settings_reach_services_and_named_logs(make_config: Callable[..., Config]) -> None:
    config = dataclasses.replace(make_config(), remote=True)
    settings = Settings(1, None, {"nova": "critical", "glance-api": "debug"})
    changed = remote.applied(config, settings, 0.0)
    assert changed.logs[0].level == "critical"
    assert (changed.level_of("glance-api"), changed.level_of("heat-api")) == ("debug", "warning")
    assert (
        remote.applied(dataclasses.replace(config, remote=False), settings, 0.0).logs[0].level
        == "debug"
    )


def test_a_settings_file_that_is_damaged_is_asked_for_anew(tmp_path: Path) -> None:
    remote.store(str(tmp_path), Settings(3, 10.0))
    assert remote.load(str(tmp_path)) == Settings(3, 10.0)
    (tmp_path / "settings.json").write_text("{")
    assert remote.load(str(tmp_path)) is None
