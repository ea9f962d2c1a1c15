"""Plugins of the original's contract run, each in a process of its own, confined and watched."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_client.config import Config
from agent_client.plugins import pushes
from agent_client.plugins import supervisor as supervisors
from agent_client.plugins.confine import landlock_version
from agent_client.plugins.supervisor import Supervisor

from .conftest import ReportServer
from .plugin_host import (
    ME,
    PACKAGED,
    PLUGIN_KEY,
    ROOT,
    Store,
    Supervise,
    until,
    wait_for_the_end_of,
)

# The contract


def test_every_kind_of_plugin_runs_and_its_data_arrives(
    server: ReportServer, folder: Path, tmp_path: Path
) -> None:
    """The whole agent, with the original's own configuration file, unchanged."""
    path = tmp_path / "sentinella.conf"
    said = json.dumps(
        {
            "api_url": server.url, "account_key": "KEY", "log_file": "", "log_level": "INFO",
            "log_format": "", "plugins_conf_dir": "${tourbillon_conf_dir}/conf.d",
            "openstack_services": {}, "plugins": {
                "sentinella.metrics": ["get_server_usage_stats"],
                "sentinella.test": ["get_stats", "bare"],
                "sentinella.native": ["native"],
                "sentinella.thread": ["thread"],
            },
            "plugin_limits": {"user": ME},
        }
    )  # fmt: skip
    path.write_text(said)
    path.chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", "-c", str(path), "run"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SENTINELLA_PLUGIN_PATHS": str(folder), "SENTINELLA_INTERVAL": "1",
             "SENTINELLA_STATE_DIR": str(tmp_path / "state")},
    )  # fmt: skip

    def points() -> list[dict[str, Any]]:
        return [one for report in server.reports.values() for one in report.get("points", [])]

    def there(measurement: str, **tags: str) -> list[dict[str, Any]]:
        return [
            one
            for one in points()
            if one["measurement"] == measurement and tags.items() <= one.get("tags", {}).items()
        ]

    def fared() -> list[dict[str, Any]]:
        return there("agent_plugin", plugin="sentinella.thread.thread")

    try:
        assert server.wait_for(
            lambda: (
                there("plugin", plugin=PLUGIN_KEY)
                and there("plugin", plugin="bare")
                and there("queue")
                and there("plugin", plugin="thread")
                and "it failed" in server.messages()
                and any(one["fields"]["up"] == 1 for one in fared())
            ),
            30,
        )
    finally:
        process.terminate()
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    one = there("plugin", plugin=PLUGIN_KEY)[0]
    assert one["fields"] == {"value": 100.0}
    assert one["tags"] == {
        "module": "sentinella.test", "plugin": PLUGIN_KEY, "id": "metric_1", "row": "Row 1",
        "metric": "metric1", "type": "integer",
    }  # fmt: skip
    assert there("plugin_state", state="running", plugin=PLUGIN_KEY)
    assert not there("plugin", id="metric_3"), "not a number is no number"
    assert there("queue", queue="mail")[0]["fields"] == {"depth": 7.0}
    assert {one["fields"]["restarts"] for one in fared()} == {0}
    event = next(one for one in server.events() if one["message"] == "it failed")
    assert (event["service"], event["level"], event["component"], event["pid"]) == (
        "backup", "error", "backup.main", 2712,
    )  # fmt: skip
    assert event["path"] == "plugin sentinella.thread"
    assert path.read_text() == said
    assert "Traceback" not in stderr


def test_the_wait_for_a_push_ends_when_it_is_stored_and_a_refusal_is_an_exception(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = """
def f(agent):
    try:
        agent.push({'plugins': 3})
    except Exception as error:
        agent.push_log({'description': 'refused: %s' % error, 'level': 'warn', 'component': ''})
    while agent.run_event.is_set():
        pass
"""
    _, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.entries)
    assert store.entries[0].message == "refused: plugins: an object by plugin key"
    assert store.entries[0].level == "warning"


def test_what_could_not_be_stored_is_told_to_the_plugin(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = """
import asyncio
async def f(agent):
    while agent.run_event.is_set():
        try:
            await agent.async_push({'plugins': {'a': {'b': {'value': 1}}}})
        except Exception as error:
            raise SystemExit(str(error))
"""
    config = configure('mine = ["f"]', write={"mine.py": code})
    store = Store()
    store.failure = OSError("the disk is full")
    supervisor = Supervisor(config, store.store, store.tell)
    supervisor.use(config)
    assert store.wait(lambda: store.said("not stored: the disk is full"))
    supervisor.close()


# What dies, hangs, floods


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(agent): raise RuntimeError('no docker here')", "RuntimeError: no docker here"),
        ("async def f(agent): raise KeyError('plugin_key')", "KeyError: 'plugin_key'"),
        ("import os\ndef f(agent): os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os\ndef f(agent): os._exit(7)", "exit code 7"),
        ("import nothing_like_it\ndef f(agent): pass", "No module named 'nothing_like_it'"),
        ("def g(agent): pass", "has no function f"),
        ("def f(agent): raise OSError('a\\nCRITICAL all is lost')", "OSError: a CRITICAL all is"),
        ("def f(agent): (", "SyntaxError"),
    ],
)
def test_what_dies_is_told_with_its_reason_and_started_again(
    configure: Callable[..., Config], supervise: Supervise, code: str, said: str
) -> None:
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.said(said)), (store.told, supervisor.states)
    assert store.told[0][0] == "error"
    assert "started again in 1 s" in store.told[0][1]
    (state,) = supervisor.states
    assert (state.ok, state.restarts) == (False, state.restarts)
    assert state.restarts >= 1


def test_the_same_death_again_and_again_is_told_once_with_longer_pauses(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_BACK_OFF_FROM", 0.01)
    code = "def f(agent): raise ValueError('always')"
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    until(lambda: supervisor.states and supervisor.states[0].restarts >= 5)
    assert len([one for one in store.told if "always" in one[1]]) == 1
    assert supervisor._plugins["mine.f"].back_off >= 0.01 * 2**5


def test_one_that_hangs_is_killed_and_started_again_while_the_others_go_on(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import asyncio, time
async def f(agent):
    await agent.async_push({'plugins': {'hangs': {'a': {'value': 1}}}})
    time.sleep(3600)
"""
    config = configure(
        'mine = ["f"]\nthread = ["thread"]', "hang_after = 10", write={"mine.py": code}
    )
    supervisor, store = supervise(config)

    def from_(key: str) -> int:
        return sum(point.tags.get("plugin") == key for point in store.points)

    assert store.wait(lambda: from_("hangs") and from_("thread"))
    plugin = supervisor._plugins["mine.f"]
    plugin.sign_at = time.monotonic() - 3600
    assert store.wait(lambda: store.said("gave no sign of life"))
    before = from_("thread")
    assert store.wait(lambda: from_("hangs") >= 2 and from_("thread") > before + 3)


def test_a_flood_is_refused_and_the_agent_goes_on(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_LINES_A_MINUTE", 20)
    code = """
def f(agent):
    while True:
        try:
            agent.push({'plugins': {'a': {'b': {'value': 1}}}})
        except Exception as error:
            assert 'a minute' in str(error)
"""
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    until(lambda: supervisor.states and supervisor.states[0].refused > 20)
    assert len(store.points) == 20


def test_one_that_ends_by_itself_is_let_rest(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    supervisor, store = supervise(
        configure('mine = ["f"]', write={"mine.py": "def f(agent): pass"})
    )
    assert store.wait(lambda: store.said("ended by itself"))
    assert supervisor.states[0].state == "ended"
    assert supervisor.states[0].restarts == 0


def test_one_that_takes_too_much_memory_or_processor_time_dies_alone(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_CPU_AHEAD", 0.5)
    hungry = "def f(agent):\n    held = [b'x' * 10**6 for _ in range(10**5)]"
    busy = "def f(agent):\n    while True: pass"
    _, store = supervise(
        configure(
            'hungry = ["f"]\nbusy = ["f"]', 'memory = "200M"\n[plugin_limits.busy]\ncpu = 1',
            write={"hungry.py": hungry, "busy.py": busy},
        )
    )  # fmt: skip
    assert store.wait(
        lambda: store.said("MemoryError") and store.said("more than 1 % of a processor"), 60
    ), store.told


def test_closing_ends_every_process_of_every_plugin(
    configure: Callable[..., Config], supervise: Supervise, tmp_path: Path
) -> None:
    code = """
import signal, subprocess, time
def f(agent):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(['sleep', '3600'])
    agent.push_log({'description': str(child.pid), 'level': 'info'})
    time.sleep(3600)
"""
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.entries)
    pid, child = supervisor.states[0].pid, int(store.entries[0].message)
    began = time.monotonic()
    supervisor.close()
    assert time.monotonic() - began < 20
    for number in (pid, child):
        assert number is not None
        wait_for_the_end_of(number)


@pytest.mark.parametrize("end", ["return", "import os; os._exit(7)"])
def test_what_a_plugin_started_does_not_outlive_it(
    configure: Callable[..., Config], supervise: Supervise, end: str
) -> None:
    code = f"""
import subprocess
def f(agent):
    child = subprocess.Popen(['sleep', '3600'])
    agent.push_log({{'description': str(child.pid), 'level': 'info'}})
    {end}
"""
    _, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.entries and store.told)
    wait_for_the_end_of(int(store.entries[0].message))


def test_where_memory_ends_a_plugin_goes_before_the_agent(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = """
def f(agent):
    with open('/proc/self/oom_score_adj') as file:
        agent.push({'plugins': {'score': {'m': {'value': int(file.read())}}}})
"""
    _, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.points)
    assert store.points[0].fields == {"value": 1000.0}


def test_a_thousand_reloads_without_a_plugin_hold_nobody_up(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    config = configure("")
    supervisor, _ = supervise(config)
    reloading = threading.Thread(
        target=lambda: [supervisor.use(config) for _ in range(1000)], daemon=True
    )
    reloading.start()
    reloading.join(20)
    assert not reloading.is_alive()


def test_a_reload_starts_a_plugin_that_was_mended_at_once(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_BACK_OFF_FROM", 3600.0)
    broken = {"mine.py": "def f(agent): raise ValueError('broken')"}
    supervisor, store = supervise(configure('mine = ["f"]', write=broken))
    assert store.wait(lambda: store.said("broken"))
    mended = {"mine.py": "def f(agent): agent.push_log({'message': 'mended'})"}
    supervisor.use(configure('mine = ["f"]', write=mended))
    assert store.wait(lambda: any(entry.message == "mended" for entry in store.entries))


def test_a_reload_starts_what_is_new_and_ends_what_is_gone(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    supervisor, store = supervise(configure('thread = ["thread"]'))
    assert store.wait(lambda: store.points)
    before = supervisor.states[0].pid
    supervisor.use(configure('thread = ["thread"]\nnative = ["native"]'))
    assert store.wait(lambda: any(point.measurement == "queue" for point in store.points))
    assert next(one for one in supervisor.states if one.name == "thread.thread").pid == before
    supervisor.use(configure('native = ["native"]'))
    until(lambda: len(supervisor.states) == 1)
    assert not Path(f"/proc/{before}").exists()


def test_an_agent_that_is_killed_takes_its_plugins_with_it(
    server: ReportServer, folder: Path, write_config: Callable[..., Path]
) -> None:
    config = write_config(
        server.url, extra=f'[plugins]\nthread = ["thread"]\n[plugin_limits]\nuser = "{ME}"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", "-c", str(config), "run"],
        cwd=ROOT, stderr=subprocess.DEVNULL,
        env={**os.environ, "SENTINELLA_PLUGIN_PATHS": str(folder)},
    )  # fmt: skip
    assert server.wait_for(lambda: "it failed" in server.messages())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    ours = [
        int(pid)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    assert ours, children
    process.kill()
    process.wait()
    for pid in ours:
        wait_for_the_end_of(pid)


# Confinement

LOOKS = """
import json, os, socket
def f(agent):
    found = {}
    def attempt(name, act):
        try:
            act()
            found[name] = 'works'
        except OSError as error:
            found[name] = error.strerror
    attempt('named', lambda: open(%(named)r).read())
    attempt('other', lambda: open(%(other)r).read())
    attempt('write', lambda: open(%(other)r, 'a').write('x'))
    attempt('make', lambda: open(%(other)r + '.new', 'w'))
    attempt('list', lambda: os.listdir('/root'))
    attempt('passwd', lambda: open('/etc/passwd').read())
    attempt('connect', lambda: socket.create_connection(('127.0.0.1', %(port)d), 2))
    found['uid'] = os.getuid()
    found['groups'] = os.getgroups()
    status = open('/proc/thread-self/status').read()
    found['caps'] = [line.split()[1] for line in status.splitlines() if line[:6] == 'CapEff'][0]
    found['environ'] = sorted(os.environ)
    agent.push_log({'description': json.dumps(found), 'level': 'info'})
    while agent.run_event.is_set():
        pass
"""


@pytest.fixture
def look(
    configure: Callable[..., Config], supervise: Supervise, tmp_path: Path, server: ReportServer
) -> Callable[..., tuple[dict[str, Any], Any]]:
    """What a plugin finds that it may do, and what the supervisor says of it."""

    def look(limits: str = "", **config: Any) -> tuple[dict[str, Any], Any]:
        named, other = tmp_path / "named", tmp_path / "other"
        for path in (named, other):
            path.write_text("x")
        code = LOOKS % {
            "named": str(named), "other": str(other), "port": int(server.url.rsplit(":", 1)[1]),
        }  # fmt: skip
        made = configure('mine = ["f"]', limits, write={"mine.py": code})
        supervisor, store = supervise(made)
        assert store.wait(lambda: store.entries), (store.told, supervisor.states)
        return json.loads(store.entries[0].message), supervisor.states[0]

    return look


needs_landlock = pytest.mark.skipif(not landlock_version(), reason="a kernel without Landlock")


@needs_landlock
def test_it_reads_only_what_is_named_and_writes_nothing(
    look: Callable[..., Any], tmp_path: Path
) -> None:
    found, state = look(f'read = ["{tmp_path}/named"]')
    denied = "Permission denied"
    assert (found["named"], found["passwd"]) == ("works", "works")
    assert [found[name] for name in ("other", "write", "make", "list")] == [denied] * 4
    assert any(one.startswith("files: only what is named") for one in state.holds)


@needs_landlock
def test_it_reaches_no_network_unless_it_may(look: Callable[..., Any]) -> None:
    found, state = look()
    assert found["connect"] != "works"
    assert any(one.startswith("network: no") for one in state.holds)


def test_the_network_is_open_to_one_that_may(look: Callable[..., Any]) -> None:
    found, _ = look("network = true")
    assert found["connect"] == "works"


def test_it_inherits_no_secret_and_no_capability(look: Callable[..., Any]) -> None:
    os.environ["SENTINELLA_KEY"] = "snt_secret"
    try:
        found, _ = look()
    finally:
        del os.environ["SENTINELLA_KEY"]
    assert "SENTINELLA_KEY" not in found["environ"]
    assert int(found["caps"], 16) == 0


def test_the_packaged_agent_runs_it_as_the_user_of_plugins_and_can_kill_it_as_such(
    as_agent: Callable[..., str],
) -> None:
    code = """
import os, time
def f(agent):
    agent.push_log({'description': '%d %d' % (os.getuid(), os.getpid())})
    time.sleep(3600)
"""
    uid, pid = as_agent(PACKAGED, code, '[plugin_limits]\nuser = "daemon"').split()
    assert int(uid) == pwd.getpwnam("daemon").pw_uid
    wait_for_the_end_of(int(pid))


# What is pushed


@pytest.mark.parametrize(
    "wrong",
    [
        None, [], {}, {"plugins": []}, {"plugins": {"k": 3}}, {"plugins": {"k": {"m": 3}}},
        {"measurements": 3}, {"measurements": [3]}, {"measurements": "{"},
        {"plugins": {"k": {str(n): {"value": n} for n in range(5001)}}},
    ],
)  # fmt: skip
def test_a_push_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        pushes.points_of(wrong)


def test_pushes_are_read_as_leniently_as_the_original_was() -> None:
    points = pushes.points_of(
        {
            "server_name": "x",
            "plugins": {"k": {"a": {"value": 1}, "b": {"value": True, "type": "Binary"}}, "l": {}},
            "measurements": json.dumps([{"name": "pressure_in_bar", "value": 2}]),
        }
    )
    assert [(one.measurement, dict(one.fields)) for one in points] == [
        ("plugin", {"value": 1.0}), ("plugin", {"value": 1.0}), ("pressure_in_bar", {"value": 2.0}),
    ]  # fmt: skip
    assert points[0].tags == {"plugin": "k", "id": "a", "metric": "a"}


def test_hostile_text_is_cut_and_times_are_the_hosts() -> None:
    (point,) = pushes.points_of({"plugins": {"k" * 999: {"i" * 999: {"value": 1}}}})
    assert all(len(text) <= 200 for text in point.tags.values())
    entry = pushes.entry_of({"timex": "2026-11-22 10:34:00.5", "description": "x", "level": "?"})
    assert time.strftime("%H:%M:%S", time.localtime(entry.at)) == "10:34:00"
    assert (entry.level, entry.at % 1) == ("info", 0.5)
    with pytest.raises(ValueError, match="description"):
        pushes.entry_of({"level": "ERROR"})


def test_limits_are_for_all_and_for_one_module(configure: Callable[..., Config]) -> None:
    config = configure(
        "", 'memory = "100M"\nnetwork = false\n["plugin_limits"."a.b"]\nnetwork = true'.replace(
            '["plugin_limits"."a.b"]', '[plugin_limits."a.b"]'
        )
    )  # fmt: skip
    assert config.limits_of("x").memory == 100 * 1024**2
    assert not config.limits_of("x").network
    assert config.limits_of("a.b").network
    assert config.limits_of("a.b").memory == 100 * 1024**2
