"""The whole agent, as a process of its own, against a server and files that are real."""

from __future__ import annotations

import json
import os
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

from agent_client import cli
from agent_client.agent import Agent
from agent_client.collectors import COLLECTORS
from agent_client.config import Config
from agent_client.discovery.host import Host
from agent_client.farewell import leave_reason
from agent_client.spool import SpoolUnusable, peek

from .conftest import KEY, ReportServer, problem
from .recorded import RecordedHost

ROOT = Path(__file__).parents[2]


class Running:
    """An agent started as an operator would start it."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent_client.cli", "run", "--config", str(self.config)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Returns how many seconds it took to end."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return time.monotonic() - began


@pytest.fixture
def running(write_config: Callable[..., Path], server: ReportServer) -> Iterator[Running]:
    agent = Running(write_config(server.url))
    yield agent
    if agent.process is not None and agent.process.poll() is None:
        agent.process.kill()
        agent.process.wait()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_client.cli", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_one_report_says_all_about_this_host(
    server: ReportServer, write_config: Callable[..., Path], logs: Path
) -> None:
    (logs / "nova.log").write_text("2026-11-22 10:00:00.000 1 ERROR nova [-] it broke\n")
    config = write_config(server.url, extra="[services.nothing-here]\nproject = 'nova'\n")
    done = run("run", "--once", "--config", str(config))
    assert done.returncode == 0, done.stderr
    (report,) = server.reports.values()
    assert {point["measurement"] for point in report["points"]} >= {
        "cpu", "load", "memory", "swap", "agent",
    }  # fmt: skip
    told = {
        point["tags"]["collector"]
        for point in report["points"]
        if point["measurement"] == "agent_collector"
    }
    assert told == {kind.name for kind in COLLECTORS}, "how each collector fares"
    assert [event["message"] for event in report["events"]] == ["it broke"]
    assert report["services"][0]["state"] == "down"
    assert report["specs"]["kernel"] == os.uname().release
    assert report["interval"] == 1
    assert KEY not in done.stderr


def test_what_is_found_is_reported_with_its_log_its_release_and_its_role(
    server: ReportServer,
    make_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    venv, log = tmp_path / "venv", tmp_path / "housekeeping.log"
    (venv / "lib/python3.11/site-packages/octavia-11.0.3.dist-info").mkdir(parents=True)
    log.write_text("2026-11-22 10:00:00.000 1 ERROR octavia [-] it broke\n")
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(
        500, f"{venv}/bin/python3 {venv}/bin/octavia-housekeeping --log-file={log}", comm="x"
    )
    proc = str(host.root / "proc")
    monkeypatch.setattr("agent_client.collectors.service.Host", lambda: Host("/", proc))
    # a busy machine may take its time to look: a minute's interval leaves it
    agent = Agent(make_config(server.url, discovery=True, interval=60))
    agent.cycle()
    agent.cycle()
    agent.sender.work(None, seconds=10.0)
    agent.close()
    first, second = (server.reports[name] for name in sorted(server.reports, key=lambda n: n[2]))
    (state,) = first["services"]
    assert (state["name"], state["project"], state["state"]) == (
        "octavia-housekeeping", "octavia", "up",
    )  # fmt: skip
    assert first["specs"]["role"] == "controller"
    assert first["specs"]["openstack"]["projects"]["octavia"] == "11.0.3"
    events = {event["message"]: event["service"] for event in server.events()}
    assert events["it broke"] == "octavia-housekeeping"
    (told,) = [event for event in server.events() if event["service"] == "sentinella"]
    assert told["component"] == "sentinella.discovery"
    assert told["message"].startswith("found 1 services: octavia-housekeeping.")
    assert "specs" not in second


def test_the_log_of_a_found_service_goes_on_where_it_was_after_a_restart(
    server: ReportServer,
    make_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = tmp_path / "barbican.log"
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(500, f"/usr/bin/python3 /usr/bin/barbican-worker --log-file {log}")
    proc = str(host.root / "proc")
    monkeypatch.setattr("agent_client.collectors.service.Host", lambda: Host("/", proc))
    for number in (1, 2, 3):
        with log.open("a") as file:
            file.write(f"2026-11-22 10:00:0{number}.000 1 ERROR barbican [-] line {number}\n")
        agent = Agent(make_config(server.url, discovery=True))
        agent.cycle()
        agent.cycle()
        agent.sender.work(None, seconds=10.0)
        agent.close()
    lines = [event["message"] for event in server.events() if event["service"] != "sentinella"]
    assert lines == ["line 1", "line 2", "line 3"]


def test_reports_come_on_schedule_with_specs_only_in_the_first(
    server: ReportServer, running: Running
) -> None:
    running.start()
    assert server.wait_for(lambda: len(server.reports) >= 4)
    running.stop()
    reports = sorted(
        (report for report in server.reports.values() if "goodbye" not in report),
        key=lambda report: report["sequence"],
    )
    assert [report["sequence"] for report in reports] == list(range(1, len(reports) + 1))
    assert "specs" in reports[0]
    assert not any("specs" in report for report in reports[1:])
    gaps = [after["at"] - before["at"] for before, after in pairwise(reports[1:])]
    assert all(gap > 0.5 for gap in gaps), "a late cycle is not made up for by a burst"


def test_it_ends_within_two_seconds_of_being_asked_and_keeps_what_it_saw(
    server: ReportServer, running: Running, tmp_path: Path
) -> None:
    server.refuse = lambda body: problem(503)
    running.start()
    state = tmp_path / "state"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        seen = peek(str(state))
        if seen is not None and seen[0].reports:
            break
        threading.Event().wait(0.05)
    assert running.stop() < 2
    assert running.process is not None
    assert running.process.returncode == 0
    seen = peek(str(state))
    assert seen is not None
    assert seen[0].reports >= 1


def goodbyes(server: ReportServer) -> list[str]:
    return [report["goodbye"] for report in server.reports.values() if "goodbye" in report]


def test_it_says_goodbye_with_a_reason(server: ReportServer, running: Running) -> None:
    running.start()
    assert server.wait_for(lambda: bool(server.reports))
    assert running.stop(signal.SIGTERM) < 2
    assert goodbyes(server) == ["SIGTERM"]
    assert "goodbye" in max(server.reports.values(), key=lambda report: report["sequence"])


def test_whoever_stops_it_may_say_why(
    server: ReportServer, running: Running, tmp_path: Path
) -> None:
    running.start()
    assert server.wait_for(lambda: bool(server.reports))
    leave_reason(str(tmp_path / "state"), "update to 2.1.0")
    running.stop()
    assert goodbyes(server) == ["update to 2.1.0"]
    seen = len(server.reports)
    running.start()
    assert server.wait_for(lambda: len(server.reports) > seen)
    running.stop(signal.SIGINT)
    assert goodbyes(server) == ["update to 2.1.0", "SIGINT"], "a reason is good for one stop"


def test_a_goodbye_that_nobody_hears_waits_for_the_next_start(
    server: ReportServer, running: Running
) -> None:
    running.start()
    assert server.wait_for(lambda: bool(server.reports))
    server.refuse = lambda body: problem(503)
    assert running.stop() < 2
    assert goodbyes(server) == []
    server.refuse = lambda body: None
    running.start()
    assert server.wait_for(lambda: goodbyes(server) != [])
    running.stop()


def test_it_ends_within_two_seconds_while_the_server_hangs(
    server: ReportServer, running: Running
) -> None:
    hanging, released = threading.Event(), threading.Event()

    def hang(body: dict[str, Any]) -> None:
        hanging.set()
        released.wait(30)

    server.refuse = hang
    running.start()
    assert hanging.wait(20)
    assert running.stop() < 2
    released.set()


def test_a_second_agent_on_the_same_state_is_refused(
    server: ReportServer, running: Running
) -> None:
    running.start()
    assert server.wait_for(lambda: len(server.reports) >= 1)
    second = run("run", "--once", "--config", str(running.config))
    assert second.returncode == 5
    assert "another agent" in second.stderr
    running.stop()


def test_the_points_of_an_outage_arrive_afterwards_the_current_report_first(
    make_config: Callable[..., Config], server: ReportServer
) -> None:
    now = 1_800_000_000.0
    agent = Agent(make_config(server.url), clock=lambda: now)
    server.refuse = lambda body: problem(503)
    for _ in range(20):
        agent.cycle()
        now += 60
    server.refuse = lambda body: None
    agent.cycle()
    agent.sender.work(agent._current, 10)
    agent.close()
    assert server.arrivals == [21, *range(1, 21)]
    times = sorted(report["at"] for report in server.reports.values())
    assert times == [1_800_000_000.0 + 60 * n for n in range(21)]


def test_a_spool_that_was_too_small_says_exactly_what_it_dropped(
    make_config: Callable[..., Config], server: ReportServer
) -> None:
    agent = Agent(make_config(server.url, extra="[spool]\nmax_size = '32K'\n"))
    for _ in range(60):
        agent.cycle()
    agent.sender.work(None, 10)
    lost = agent.spool.losses()
    agent.cycle()
    agent.cycle()
    agent.sender.work(None, 10)
    agent.close()
    newest = max(server.reports.values(), key=lambda report: report["sequence"])
    fields = {point["measurement"]: point["fields"] for point in newest["points"]}["agent"]
    assert lost.reports > 0
    assert fields["dropped_reports"] == lost.reports
    assert fields["dropped_points"] == lost.points
    (told,) = [text for text in server.messages() if "were dropped" in text]
    assert f"{lost.points} points" in told
    assert f"{lost.reports} reports as a whole" in told


def test_a_damaged_spool_costs_its_content_and_not_the_agent(
    make_config: Callable[..., Config], server: ReportServer, tmp_path: Path
) -> None:
    config = make_config(server.url)
    agent = Agent(config)
    agent.cycle()
    agent.close()
    (tmp_path / "state" / "spool.db").write_bytes(b"rubbish" * 5000)
    agent = Agent(config)
    agent.cycle()
    agent.sender.work(None, 10)
    agent.close()
    (report,) = server.reports.values()
    assert report["sequence"] == 1
    assert any("damaged" in text for text in server.messages())


def test_log_positions_outlive_a_spool_that_began_anew(
    make_config: Callable[..., Config], server: ReportServer, logs: Path
) -> None:
    config = make_config(server.url)
    agent = Agent(config)
    (logs / "nova.log").write_text("one\n")
    agent.cycle()
    agent.cycle()
    agent._begin_anew(OSError("found damaged at work"))
    agent.cycle()
    agent.close()
    with (logs / "nova.log").open("a") as file:
        file.write("two\n")
    os.utime(logs / "nova.log", (1, 1))
    agent = Agent(config)
    agent.cycle()
    agent.sender.work(None, 10)
    agent.close()
    assert [text for text in server.messages() if "spool" not in text] == ["one", "two"]


def test_status_says_what_it_sees_what_it_sent_and_what_waits(
    server: ReportServer, running: Running, logs: Path
) -> None:
    (logs / "nova.log").write_text("plain line\n")
    never = run("status", "--config", str(running.config))
    assert never.returncode == 1
    assert "never ran" in never.stdout
    running.start()
    assert server.wait_for(lambda: len(server.reports) >= 3)
    status = run("status", "--json", "--config", str(running.config))
    said = json.loads(status.stdout)
    assert said["running"]
    assert said["sent"] >= 2
    assert {collector["name"] for collector in said["collectors"]} >= {"cpu", "agent", "service"}
    assert said["logs"][0]["path"] == str(logs / "nova.log")
    assert status.returncode == 0, said["problems"]
    text = run("status", "--config", str(running.config)).stdout
    assert "waiting" in text
    assert KEY not in status.stdout + text
    running.stop()
    assert run("status", "--config", str(running.config)).returncode == 1


def test_status_names_a_key_that_is_not_accepted(server: ReportServer, running: Running) -> None:
    server.refuse = lambda body: problem(401)
    assert run("run", "--once", "--config", str(running.config)).returncode == 3
    status = run("status", "--config", str(running.config))
    assert status.returncode == 1
    assert "does not know this key" in status.stdout
    assert "waiting   1 reports" in status.stdout


def test_enrolling_writes_a_private_configuration_that_runs(
    server: ReportServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "etc" / "agent.toml"
    monkeypatch.setenv("SENTINELLA_STATE_DIR", str(tmp_path / "state"))
    done = run("enrol", "--server", server.url, "--token", "snt_once", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert config.stat().st_mode & 0o777 == 0o600
    monkeypatch.delenv("SENTINELLA_STATE_DIR")
    assert run("run", "--once", "--config", str(config)).returncode == 0
    (report,) = server.reports.values()
    assert report["agent"] == server.requests[0]["body"]["agent"]
    assert server.requests[-1]["headers"]["Authorization"] == f"Bearer {KEY}"


def test_an_agent_that_is_not_enrolled_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f"[agent]\nstate_dir = '{tmp_path}'\n")
    assert cli.main(["run", "--config", str(path)]) == 2
    assert "sentinella enrol" in capsys.readouterr().err


def test_what_the_host_is_made_of_is_said_again_where_it_could_not_be_stored(
    server: ReportServer, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(make_config(server.url))

    def full(*_: Any) -> int:
        raise SpoolUnusable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(agent.spool, "append", full)
        agent.cycle()
    agent.cycle()
    agent.sender.work(None, seconds=10.0)
    agent.close()
    (report,) = server.reports.values()
    assert report["specs"]["kernel"] == os.uname().release


def test_what_a_collector_fails_with_shows_no_password_in_status(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(make_config())

    def fails(*_: Any) -> None:
        raise OSError("http://admin:sesame-77@rabbit:15672 refuses")

    monkeypatch.setattr(agent.panel.collectors[0], "collect", fails)
    agent.cycle()
    agent.close()
    status = (tmp_path / "state" / "status.json").read_text()
    assert "rabbit:15672 refuses" in status
    assert "sesame-77" not in status
