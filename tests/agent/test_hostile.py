"""A host and a server that mean ill: what they may not make the agent do."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_client import remote
from agent_client.agent import Agent
from agent_client.config import Config, LogSource
from agent_client.discovery.evidence import uncertain
from agent_client.discovery.host import Host
from agent_client.discovery.look import Discovery
from agent_client.discovery.memory import Memory, Seen
from agent_client.discovery.processes import ProcessTable
from agent_client.inbox import _CONNECTIONS, Inbox, Unstorable, hand_over
from agent_client.private_files import write_private
from agent_client.tailer import Tailer

from .conftest import ReportServer, until
from .recorded import RecordedHost

SECRET = "2026-11-22 10:00:00.000 1 ERROR root [-] the password is hunter2\n"
STRANGER = 65_533

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users' files are made by root")


def read(tailer: Tailer) -> list[str]:
    """The lines of three looks; what the agent tells of itself is left out."""
    found = []
    for _ in range(3):
        poll = tailer.poll(time.time())
        tailer.accept(poll)
        found += [entry.message for entry in poll.entries if entry.component == "root"]
    return found


def told(tailer: Tailer) -> str:
    return " ".join(state.detail for state in tailer.states.values())


# Somebody who runs something under a service's name


class Imitated:
    """A host on which a user runs something as nova-api, and a file of root's."""

    def __init__(self, tmp_path: Path) -> None:
        self.host = RecordedHost(tmp_path / "r")
        self.host.process(1, "/lib/systemd/systemd")
        self.secret = self.host.file("/srv/private/secret.log", SECRET)
        self.config = Config(state_dir=str(tmp_path / "state"), interval=10)

    def sources(self, log_file: str, user: int) -> tuple[LogSource, ...]:
        self.host.process(500, f"nova-api --log-file={log_file}", user=user)
        self.discovery = Discovery(
            self.config, Host(str(self.host.root)), pause=lambda seconds: None
        )
        self.discovery.look()
        return tuple(one for one in self.discovery.sources if one.kind == "file")


@pytest.fixture
def imitated(tmp_path: Path) -> Imitated:
    return Imitated(tmp_path)


def test_a_command_line_names_no_log_of_another_user(imitated: Imitated) -> None:
    assert imitated.sources("/srv/private/secret.log", STRANGER) == ()
    assert any(
        "/srv/private/secret.log is not read" in one for one in uncertain(imitated.discovery)
    )
    assert [one.pattern for one in imitated.sources("/srv/private/secret.log", 0)] == [
        "/srv/private/secret.log"
    ]


@as_root
def test_a_command_line_names_logs_of_its_own_user_and_of_no_other_later(
    imitated: Imitated,
) -> None:
    own = imitated.host.file("/home/u/own.log", "x\n")
    os.chown(own, STRANGER, STRANGER)
    (source,) = imitated.sources("/home/u/own.log", STRANGER)
    assert (source.pattern, source.owner) == ("/home/u/own.log", STRANGER)
    tailer = Tailer([LogSource(str(own), "nova-api", "debug", owner=source.owner)], {})
    read(tailer)
    own.unlink()
    own.write_text(SECRET)  # root's, under the same name
    assert read(tailer) == []
    os.chown(own, STRANGER, STRANGER)
    assert len(read(tailer)) == 1


def test_a_command_line_is_no_pattern(imitated: Imitated) -> None:
    assert imitated.sources("/*/*.log", 0) == ()
    imitated.host.file("/srv/private/[ab].log", "x")
    assert [one.pattern for one in imitated.sources("/srv/private/[ab].log", 0)] == [
        "/srv/private/[[]ab].log"
    ]


def test_the_user_of_a_process_is_who_called_it(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    host.process(7, "su", user=1000)  # whose effective user is root
    table: ProcessTable[str] = ProcessTable(lambda comm, argv: None, str(host.root / "proc"))
    assert table.owner(7) == 1000
    assert table.owner(8) is None
    here: ProcessTable[str] = ProcessTable(lambda comm, argv: None)
    assert here.owner(os.getpid()) == os.getuid()


# Folders that belong to a service, and what it puts there


@as_root
def test_a_link_of_a_user_leads_to_no_file_of_another(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    logs = tmp_path / "nova"
    logs.mkdir()
    os.chown(logs, STRANGER, STRANGER)
    for name in ("nova-api.log", "nova-api.log.1"):
        (logs / name).symlink_to(secret)
        os.lchown(logs / name, STRANGER, STRANGER)
    tailer = Tailer([LogSource(str(logs / "*.log"), "nova", "debug")], {})
    assert read(tailer) == []
    assert f"a link of user {STRANGER} leads to a file of user 0" in told(tailer)


@as_root
def test_links_of_root_and_of_the_files_own_user_are_followed(tmp_path: Path) -> None:
    real = tmp_path / "real.log"
    real.write_text(SECRET)
    os.chown(real, STRANGER, STRANGER)
    folder = tmp_path / "link"
    folder.symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "current.txt").symlink_to("real.log")
    os.lchown(tmp_path / "current.txt", STRANGER, STRANGER)
    tailer = Tailer([LogSource(str(folder / "current.txt"), "nova", "debug")], {})
    assert len(read(tailer)) == 1


def test_what_is_no_file_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(SECRET)
    tailer = Tailer([LogSource(str(tmp_path / "*.log"), "nova", "debug")], {})
    assert len(read(tailer)) == 1
    (file,) = tailer._generations._find({}).values()
    path.unlink()
    os.mkfifo(path)  # between listing and opening: without a writer, opening it would wait
    assert file.open() is None
    for name, target in (("b.log", "/dev/zero"), ("c.log", "c.log"), ("d.log", str(tmp_path))):
        (tmp_path / name).symlink_to(target)
    assert read(tailer) == []


def test_a_name_that_is_no_text_is_stored_like_any_other(
    make_config: Callable[..., Config], logs: Path, server: ReportServer
) -> None:
    name = os.path.join(os.fsencode(logs), b"\xff\n.log")
    with open(name, "wb") as file:
        file.write(SECRET.encode())
    config = dataclasses.replace(
        make_config(server.url), logs=(LogSource(str(logs / "*.log"), "nova", "debug"),)
    )
    agent = Agent(config)
    try:
        agent.cycle()
        agent.cycle()
    finally:
        agent.close()
    again = Agent(config)
    try:
        assert any(".log" in position for position in again.spool.positions())
    finally:
        again.close()


# A server that is broken, or none of ours


@pytest.mark.parametrize(
    "said",
    [
        {"version": 1, "levels": {"nova": ["info"]}},
        {"version": 1, "levels": {"nova": {}}},
        {"version": 1, "levels": ["info"]},
        {"version": 1, "interval": 0.0001},
        {"version": 1, "interval": math.nan},
        {"version": 1, "interval": 10**400},
        {"version": 1, "levels_until": math.nan},
        {"version": 1, "levels_until": 10**400},
        {"version": 1, "collectors": {"cpu": 0}},
        {"version": "1"},
        ["x"],
    ],
    ids=str,
)
def test_settings_that_are_none_are_refused_whole(said: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        remote.parse(said)


def test_an_agent_outlives_settings_that_are_none(
    make_config: Callable[..., Config], server: ReportServer
) -> None:
    agent = Agent(dataclasses.replace(make_config(server.url), remote=True))
    try:
        agent._hear_settings({"version": 1, "levels": {"nova": ["info"]}})
        agent.cycle()
        assert "levels" in agent._settings_problem
    finally:
        agent.close()


@pytest.mark.parametrize("server_time", [math.inf, math.nan, -1.0, 10**400, 1e300, True, "x"])
def test_a_time_that_no_clock_shows_is_no_time(
    make_config: Callable[..., Config], server: ReportServer, server_time: object
) -> None:
    server.clock = lambda: server_time  # type: ignore[assignment,return-value]
    agent = Agent(make_config(server.url))
    try:
        for _ in range(8):
            agent.cycle()
            agent.sender.work(agent._current, seconds=5.0)
        assert agent.skew.offset is None
        assert agent.skew.correction == 0.0
        assert agent.spool.waiting().reports == 0
    finally:
        agent.close()


def test_a_server_that_always_says_at_once_is_asked_less_and_less(
    make_config: Callable[..., Config], server: ReportServer
) -> None:
    server.refuse = lambda body: (503, {"Retry-After": "0"}, b"")
    agent = Agent(make_config(server.url))
    now = 0.0
    agent.sender._clock = lambda: now
    agent.sender._draw = lambda low, high: high
    waits = []
    try:
        agent.cycle()
        for _ in range(12):
            agent.sender.work(None, seconds=5.0)
            waits.append(agent.sender._not_before - now)
            now = agent.sender._not_before
    finally:
        agent.close()
    assert waits[0] <= 1.0
    assert waits[-1] >= 30.0


# Scripts on this host


def test_what_cannot_be_read_is_answered_and_the_next_is_stored(tmp_path: Path) -> None:
    stored: list[Any] = []
    inbox = Inbox(str(tmp_path), lambda points, entries: stored.extend(points))
    try:
        for line in (
            b"[" * 100_000,
            b'{"measurement": "m", "fields": {"v": 1' + b"0" * 400 + b"}}",
            b'{"measurement": "m", "fields": {"v": NaN}}',
            b"\xff",
        ):
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(20.0)
                link.connect(str(tmp_path / "send.sock"))
                link.sendall(line + b"\n")
                assert "error" in json.loads(link.makefile().readline())
        with pytest.raises(Unstorable):
            hand_over(str(tmp_path), [{"measurement": "m", "fields": {}}])
        hand_over(str(tmp_path), [{"measurement": "m", "fields": {"v": 1}}])
        assert len(stored) == 1
    finally:
        inbox.close()


def test_those_who_say_nothing_keep_nobody_out(tmp_path: Path) -> None:
    stored: list[Any] = []
    inbox = Inbox(str(tmp_path), lambda points, entries: stored.extend(entries))
    silent = []
    try:
        for _ in range(100):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(20.0)
            link.connect(str(tmp_path / "send.sock"))
            link.sendall(b'{"message": ')  # and no more
            silent.append(link)
            if not len(silent) % 10:
                hand_over(str(tmp_path), [{"message": f"{len(silent)}"}])
        silent[-1].sendall(b'"late"}\n')
        assert json.loads(silent[-1].makefile().readline()) == {"ok": True}
        assert len(stored) == 11
    finally:
        inbox.close()
        for link in silent:
            link.close()


def test_who_speaks_while_another_comes_is_not_taken_for_silent(tmp_path: Path) -> None:
    busy, going = threading.Event(), threading.Event()

    def store(points: Any, entries: Any) -> None:
        busy.set()
        going.wait(20)

    inbox = Inbox(str(tmp_path), store)
    links: list[socket.socket] = []

    def connect() -> None:
        links.append(socket.socket(socket.AF_UNIX))
        links[-1].settimeout(20.0)
        links[-1].connect(str(tmp_path / "send.sock"))

    try:
        for number in range(_CONNECTIONS):
            connect()
            until(lambda number=number: len(inbox._waiting) > number)  # type: ignore[misc]
        links[1].sendall(b'{"message": "x"}\n')
        assert busy.wait(20)
        connect()
        links[0].sendall(b'{"message": "late"}\n')
        going.set()
        assert json.loads(links[0].makefile().readline()) == {"ok": True}
    finally:
        going.set()
        inbox.close()
        for link in links:
            link.close()


@as_root
def test_who_may_not_hand_over_is_told_where() -> None:
    place = tempfile.mkdtemp()
    os.chown(place, STRANGER, STRANGER)
    state = os.path.join(place, "state")
    os.mkdir(state, 0o700)
    inbox = Inbox(state, lambda points, entries: None)
    try:
        os.seteuid(STRANGER)
        with pytest.raises(PermissionError) as refused:
            hand_over(state, [{"message": "x"}])
        assert refused.value.filename == os.path.join(state, "send.sock")
    finally:
        os.seteuid(0)
        inbox.close()
        shutil.rmtree(place)


# Root in the directory of the agent's user


@as_root
def test_root_follows_no_link_in_the_agents_directory(tmp_path: Path) -> None:
    state, precious = tmp_path / "state", tmp_path / "precious"
    state.mkdir()
    os.chown(state, STRANGER, STRANGER)
    precious.write_text("root's")
    (state / f"discovery.json.{os.getpid()}.new").symlink_to(precious)
    memory = Memory(str(state))
    memory.services["nova-api"] = Seen("nova-api", "nova", 1.0)
    memory.save()
    assert precious.read_text() == "root's"
    assert precious.stat().st_uid == 0
    assert (state / "discovery.json").stat().st_uid == STRANGER
    write_private(str(state / "settings.json"), "{}\n")
    assert (state / "settings.json").stat().st_uid == STRANGER
