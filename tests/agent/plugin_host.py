"""Plugins, and a supervisor of them without the rest of an agent."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_client.config import Config, load
from agent_client.plugins import supervisor as supervisors
from agent_client.plugins.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
#: What everybody may run, unlike the Python of these tests where that lies in a home.
PYTHON = "/usr/bin/python3"
FOR_EVERYBODY = os.access(PYTHON, os.X_OK)

#: As whom plugins run here: whoever runs the tests can read this Python, others perhaps not.
ME = pwd.getpwuid(os.geteuid()).pw_name
PLUGIN_KEY = "0f1d3c52-8f3b-4b52-9a3e-2b7d5a0c9e11"

#: After WIRE.md, section 9, as the published template and plugins are written.
GENERATOR = """
import logging
import os
import trollius as asyncio
from trollius import From
from neighbour import VALUE

logger = logging.getLogger(__name__)
frequency = 0.05
hostname = os.uname()[1].split('.')[0]

@asyncio.coroutine
def get_stats(agent):
    yield From(agent.run_event.wait())
    config = agent.config['test']
    yield From(agent.async_create_database(**{'name': 'x'}))
    loop = asyncio.get_event_loop()
    while agent.run_event.is_set():
        yield From(asyncio.sleep(frequency))
        value = yield From(loop.run_in_executor(None, lambda: VALUE))
        data = {'server_name': hostname, 'plugins': {config['plugin_key']: {
            'metric_1': {'row_name': 'Row 1', 'metric_name': 'metric1', 'value': value,
                         'type': 'integer'},
            'metric_2': {'row_name': 'Row 1', 'metric_name': 'status', 'value': 'running',
                         'type': 'String'},
            'metric_3': {'row_name': 'Row 1', 'metric_name': 'load', 'value': float('nan'),
                         'type': '%'}}}}
        yield From(agent.async_push(data))

def bare(agent):
    yield From(agent.run_event.wait())
    while agent.run_event.is_set():
        yield From(asyncio.sleep(frequency))
        yield From(agent.async_push({'plugins': {'bare': {'m': {'value': 1}}}}))
"""

NATIVE = """
import asyncio

async def native(agent):
    await agent.run_event.wait()
    while agent.run_event.is_set():
        await asyncio.sleep(0.05)
        await agent.async_push({'server_name': 'x', 'measurements': [
            {'name': 'queue.depth', 'value': 7, 'tags': {'queue': 'mail'}}], 'stats': {}})
"""

THREAD = """
import time

def thread(agent):
    agent.run_event.wait()
    agent.create_database('nothing')
    while agent.run_event.is_set():
        time.sleep(0.05)
        agent.push({'plugins': {'thread': {'m': {'row_name': 'r', 'value': 3.5, 'type': '%'}}}})
        agent.push_log({'service_name': 'backup', 'timex': '2026-11-22 10:34:00.666',
                        'log_id': '2712', 'level': 'ERROR', 'component': 'backup.main',
                        'description': 'it failed\\n'})
"""


#: Runs plugins until the first of them brings something, or something is told of one.
AGENT = """
import sys, threading
sys.path.insert(0, %(code)r)
from agent_client.config import parse
from agent_client.plugins.supervisor import Supervisor
config = parse(%(config)r, "agent.toml")
came = threading.Event()
def store(points, entries):
    print(entries[0].message, flush=True)
    came.set()
def tell(level, text):
    print(level, text, flush=True)
    came.set()
supervisor = Supervisor(config, store, tell)
supervisor.use(config)
came.wait(30)
supervisor.close()
"""
#: The rights of the packaged agent: not root, with the two capabilities of its unit.
PACKAGED = [
    "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=+setuid,+setgid", "--ambient-caps=+setuid,+setgid",
]  # fmt: skip


class Store:
    """What plugins bring, instead of a spool."""

    def __init__(self) -> None:
        self.points: list[Any] = []
        self.entries: list[Any] = []
        self.told: list[tuple[str, str]] = []
        self.failure: Exception | None = None
        self._changed = threading.Condition()

    def store(self, points: Any, entries: Any) -> None:
        if self.failure is not None:
            raise self.failure
        with self._changed:
            self.points.extend(points)
            self.entries.extend(entries)
            self._changed.notify_all()

    def tell(self, level: str, text: str) -> None:
        with self._changed:
            self.told.append((level, text))
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], seconds: float = 20.0) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(condition, seconds))

    def said(self, text: str) -> bool:
        return any(text in one for _, one in self.told)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "plugins"
    (path / "test").mkdir(parents=True)
    (path / "test" / "__init__.py").write_text(GENERATOR)
    (path / "test" / "neighbour.py").write_text("VALUE = 100\n")
    (path / "native.py").write_text(NATIVE)
    (path / "thread.py").write_text(THREAD)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "test.conf").write_text(json.dumps({"plugin_key": PLUGIN_KEY}))
    return path


@pytest.fixture
def configure(folder: Path, tmp_path: Path) -> Callable[..., Config]:
    def configure(plugins: str, limits: str = "", write: dict[str, str] | None = None) -> Config:
        for name, text in (write or {}).items():
            (folder / name).write_text(text)
        path = tmp_path / "agent.toml"
        user = "" if "user = " in limits else f'user = "{ME}"\n'
        path.write_text(
            f'[agent]\nplugin_paths = ["{folder}"]\nplugins_dir = "{tmp_path}/conf.d"\n'
            f"[plugins]\n{plugins}\n[plugin_limits]\n{user}{limits}\n"
        )
        return load(str(path), {})

    return configure


@pytest.fixture
def supervise(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Config], tuple[Supervisor, Store]]]:
    monkeypatch.setattr(supervisors, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(supervisors, "_STOP_SECONDS", 0.1)
    made: list[Supervisor] = []

    def supervise(config: Config) -> tuple[Supervisor, Store]:
        store = Store()
        supervisor = Supervisor(config, store.store, store.tell)
        supervisor.use(config)
        made.append(supervisor)
        return supervisor, store

    yield supervise
    for one in made:
        one.close()


@pytest.fixture
def as_agent() -> Iterator[Callable[..., str]]:
    """What an agent with these rights alone prints that runs this code as its plugin.

    It says what the plugin pushes and what is told of it.
    """
    if os.geteuid() != 0 or not FOR_EVERYBODY:
        pytest.skip("only root gives rights, and to a Python for everybody")
    place = Path(tempfile.mkdtemp())
    shutil.copytree(
        ROOT / "agent_client", place / "agent_client", ignore=shutil.ignore_patterns("__pycache__")
    )
    plugins = place / "plugins"
    plugins.mkdir()

    def run(rights: list[str], code: str, limits: str = "") -> str:
        (plugins / "mine.py").write_text(code)
        for path in (place, *place.rglob("*")):  # a checkout may lie where others cannot read
            path.chmod(0o755 if path.is_dir() else 0o644)
        config = f'[agent]\nplugin_paths = ["{plugins}"]\n[plugins]\nmine = ["f"]\n{limits}'
        script = AGENT % {"code": str(place), "config": config}
        done = subprocess.run(
            ["setpriv", *rights, PYTHON, "-c", script],
            capture_output=True, text=True, timeout=60, check=False, cwd="/",
        )  # fmt: skip
        if "setpriv" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    shutil.rmtree(place)


Supervise = Callable[[Config], tuple[Supervisor, Store]]


def wait_for_the_end_of(pid: int) -> None:
    """It was killed before this; the kernel takes a moment to end it."""
    until(lambda: not lives(pid))


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for what nobody tells of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
