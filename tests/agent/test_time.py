"""Clocks that are set, and processes that are stopped for a while and go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_client.agent import Agent
from agent_client.config import Config

from .conftest import ReportServer

ROOT = Path(__file__).parents[2]
#: Differences of two clocks, which may well be below zero.
SIGNED = ("clock", "agent")


def numbers(reports: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    return [
        (point["measurement"], name, value)
        for report in reports
        for point in report["points"]
        if point["measurement"] not in SIGNED
        for name, value in point["fields"].items()
    ]


def test_a_clock_that_is_set_back_and_forth_bends_no_number_and_floods_nobody(
    make_config: Callable[..., Config], server: ReportServer, logs: Path
) -> None:
    now = 1_800_000_000.0
    log = logs / "a.log"
    log.touch()
    agent = Agent(make_config(server.url), clock=lambda: now)
    written = 0
    try:
        for step in (0, 10, -3600, 10, 10, 7200, 10, 10, -3600, 10, 86_400, 10, -86_400, 10):
            now += step
            with log.open("a") as file:
                written += 1
                file.write(f"2027-01-15 08:00:{written:02d}.000 1 ERROR nova [-] {written}\n")
            agent.cycle()
        for _ in range(2):
            now += 10
            agent.cycle()
        agent.sender.work(None, 10)
        assert agent.spool.losses().reports == 0
    finally:
        agent.close()
    reports = sorted(server.reports.values(), key=lambda report: report["sequence"])
    assert len(reports) == 16
    assert len({report["at"] for report in reports}) == 16
    assert [entry for entry in numbers(reports) if entry[2] < 0] == []
    assert [text for text in server.messages() if text.isdigit()] == [
        str(number) for number in range(1, written + 1)
    ]
    own = [event for event in server.events() if event["component"].startswith("sentinella.")]
    assert len(own) == len({event["message"] for event in own}), "nothing is said twice"
    assert len(own) <= 6
    assert sum("specs" in report for report in reports) <= 2


@pytest.mark.chaos
def test_an_agent_that_was_stopped_goes_on_with_one_report_and_its_schedule(
    write_config: Callable[..., Path], server: ReportServer
) -> None:
    config = str(write_config(server.url))
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", "run", "--config", config],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.wait_for(lambda: len(server.reports) >= 2)
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(6.0)
        before = len(server.reports)
        process.send_signal(signal.SIGCONT)
        assert server.wait_for(lambda: len(server.reports) >= before + 4)
    finally:
        process.kill()
        _, said = process.communicate(timeout=20)
    reports = sorted(server.reports.values(), key=lambda report: report["sequence"])
    times = [report["at"] for report in reports]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert max(pauses) > 4
    after = times[pauses.index(max(pauses)) + 1 :]
    # on schedule: none of those that were left out is made up for
    assert len(after) <= (after[-1] - after[0]) + 3
    assert [entry for entry in numbers(reports) if entry[2] < 0] == []
    assert "left out" in said
