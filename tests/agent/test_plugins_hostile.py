"""Plugins that mean ill or go wrong: what they may not do to the host and to the agent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_client import plugin_modules
from agent_client.config import Config, ConfigError, parse
from agent_client.inbox import Inbox
from agent_client.plugins import ending, pushes
from agent_client.plugins import supervisor as supervisors
from agent_client.plugins.confine import landlock_version
from agent_client.plugins.limits import Limits

from .plugin_host import (
    FOR_EVERYBODY,
    ME,
    PACKAGED,
    PLUGIN_KEY,
    PYTHON,
    ROOT,
    Supervise,
    lives,
    until,
    wait_for_the_end_of,
)

IS_ROOT = os.geteuid() == 0

as_root = pytest.mark.skipif(not IS_ROOT, reason="users and groups are changed by root")
needs_landlock = pytest.mark.skipif(not landlock_version(), reason="a kernel without Landlock")


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Config]]:
    """Configures plugins that run as somebody who is not root, whoever runs the tests."""
    if IS_ROOT and not FOR_EVERYBODY:
        pytest.skip("no Python for everybody")
    if IS_ROOT:
        monkeypatch.setattr(sys, "executable", PYTHON)
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)

    def configure(plugins: str, limits: str = "", **write: str) -> Config:
        for name, text in write.items():
            (place / f"{name}.py").write_text(text)
            (place / f"{name}.py").chmod(0o644)
        user = "nobody" if IS_ROOT else ME
        text = f'[plugins]\n{plugins}\n[plugin_limits]\nuser = "{user}"\n{limits}\n'
        return parse(f'[agent]\nplugin_paths = ["{place}"]\n{text}', "agent.toml")

    yield configure
    shutil.rmtree(place)


# Each its own configuration, each its own name

TELLS = """
import json
def f(agent):
    try:
        agent.config['other']
        error = ''
    except KeyError as missing:
        error = str(missing)
    agent.push_log({'description': json.dumps([sorted(agent.config), error])})
"""


@pytest.fixture
def told(
    configure: Callable[..., Config], supervise: Supervise, tmp_path: Path
) -> Callable[..., Any]:
    """What a plugin `mine` is told of `mine.conf` and `other.conf`."""

    def told(limits: str = "") -> Any:
        for name in ("mine", "other"):
            path = tmp_path / "conf.d" / f"{name}.conf"
            path.write_text(json.dumps({"plugin_key": name + "-key", "password": "hunter2"}))
        _, store = supervise(configure('mine = ["f"]', limits, write={"mine.py": TELLS}))
        assert store.wait(lambda: store.entries), store.told
        return json.loads(store.entries[0].message)

    return told


def test_a_plugin_is_told_its_own_files_and_what_to_do_for_another(
    told: Callable[..., Any],
) -> None:
    names, error = told()
    assert names == ["mine"]
    assert 'config = ["other"] below [plugin_limits."mine"]' in error


def test_a_file_of_another_name_is_a_plugins_where_the_configuration_says_so(
    told: Callable[..., Any],
) -> None:
    assert told('[plugin_limits.mine]\nconfig = ["other"]') == [["mine", "other"], ""]


def test_files_belong_to_the_modules_that_they_are_named_after() -> None:
    said: dict[str, Any] = {
        name: {} for name in ("docker", "docker.stats", "sentinella.docker", "test", "stats")
    }
    config = Config(
        plugin_settings=said,
        plugin_limits={"": Limits(), "sentinella.template": Limits(config=("test",))},
    )
    assert set(config.settings_of("sentinella.docker")) == {"docker", "sentinella.docker"}
    assert set(config.settings_of("docker.stats")) == {"docker", "docker.stats"}
    assert set(config.settings_of("sentinella.template")) == {"test"}
    assert config.settings_of("nothing") == {}


def test_the_originals_file_may_say_what_its_plugins_may_use() -> None:
    said: dict[str, Any] = {
        "api_url": "https://x.example", "account_key": "k", "log_file": "", "log_level": "INFO",
        "log_format": "", "plugins_conf_dir": "", "openstack_services": {},
        "plugin_limits": {"user": "root", "sentinella.template": {"config": ["test"]}},
    }  # fmt: skip
    config = parse(json.dumps(said), "sentinella.conf")
    assert config.limits_of("sentinella.docker").user == "root"
    assert config.limits_of("sentinella.template").config == ("test",)
    assert config.limits_of("sentinella.template").network, "as the original's plugins have it"
    assert not config.warnings
    said["plugin_limits"] = {"usr": "root"}
    with pytest.raises(ConfigError, match="no such option"):
        parse(json.dumps(said), "sentinella.conf")


def test_one_whose_files_did_not_change_goes_on_when_anothers_did(
    configure: Callable[..., Config], supervise: Supervise, tmp_path: Path
) -> None:
    both = 'thread = ["thread"]\n"sentinella.test" = ["get_stats"]'
    supervisor, store = supervise(configure(both))

    def pids() -> dict[str, int | None]:
        return {one.name: one.pid for one in supervisor.states}

    def keys() -> set[str]:
        return {one.tags["plugin"] for one in store.points}

    assert store.wait(lambda: keys() == {"thread", PLUGIN_KEY})
    before = pids()
    (tmp_path / "conf.d" / "test.conf").write_text('{"plugin_key": "another"}')
    supervisor.use(configure(both))
    assert store.wait(lambda: "another" in keys())
    assert pids()["thread.thread"] == before["thread.thread"]
    assert pids()["sentinella.test.get_stats"] != before["sentinella.test.get_stats"]


def test_nobody_pushes_under_anothers_key_or_name(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = f"""
import json
def f(agent):
    answers = []
    for key in ({PLUGIN_KEY!r}, {PLUGIN_KEY.upper()!r} + ' ', 'thread', 'thread.thread', 'free'):
        try:
            agent.push({{'plugins': {{key: {{'m': {{'value': 666}}}}}}}})
            answers.append('taken')
        except Exception as error:
            answers.append(str(error).partition(': ')[2])
    agent.push({{'measurements': [
        {{'name': 'queue.depth', 'value': 666, 'tags': {{'module': 'thread', 'a': 'b'}}}}]}})
    agent.push_log({{'description': json.dumps(answers), 'service_name': 'backup'}})
"""
    both = 'mine = ["f"]\nthread = ["thread"]'
    _, store = supervise(configure(both, write={"mine.py": code}))

    def mine() -> list[Any]:
        return [one for one in store.entries if one.path == "plugin mine"]

    assert store.wait(mine), store.told
    refused = "is the key or the name of another plugin"
    assert json.loads(mine()[0].message) == [refused, refused, refused, refused, "taken"]
    forged = [point for point in store.points if 666 in point.fields.values()]
    assert [(one.tags["module"], one.tags.get("plugin")) for one in forged] == [
        ("mine", "free"), ("mine", None),
    ]  # fmt: skip
    assert all(
        one.tags["module"] == "thread" for one in store.points if one.tags.get("plugin") == "thread"
    )


@pytest.mark.parametrize(
    "name", ["cpu.user", "agent_plugin.up", "plugin.value", "service.up", "agent"]
)
def test_nobody_pushes_what_the_agent_itself_measures(name: str) -> None:
    with pytest.raises(ValueError, match="the agent's own"):
        pushes.points_of({"measurements": [{"name": name, "value": 1}]}, "mine")


def test_nobody_speaks_as_the_agent() -> None:
    with pytest.raises(ValueError, match="the agent's own"):
        pushes.entry_of({"description": "all is well", "service_name": "Sentinella "}, "mine")


def test_a_key_is_a_plugins_own_wherever_its_file_has_it() -> None:
    said = {"a": [{"plugin_key": "ONE"}], "b": {"plugin_key": 2, "password": "three"}}
    assert pushes.keys_in(said) == {"one", "2"}


# As whom


@as_root
def test_where_its_user_is_not_there_root_runs_it_as_nobody_and_says_so(
    unprivileged: Callable[..., Config], supervise: Supervise
) -> None:
    code = """
import os
def f(agent):
    agent.push_log({'description': '%d %d' % (os.getuid(), os.geteuid())})
    while agent.run_event.is_set():
        pass
"""
    config = unprivileged('mine = ["f"]', '[plugin_limits.mine]\nuser = "no-such"', mine=code)
    supervisor, store = supervise(config)
    assert store.wait(lambda: store.entries), store.told
    assert store.entries[0].message == "65534 65534"
    (state,) = supervisor.states
    (missing,) = [one for one in state.missing if one.startswith("user: ")]
    assert missing == "user: there is no user no-such (useradd --system no-such); it runs as nobody"
    ((level, text),) = store.told
    assert level == "warning"
    assert "mine.f is not the user that it should be: there is no user no-such" in text


@pytest.mark.skipif(IS_ROOT, reason="root may change its user")
def test_what_the_host_cannot_enforce_is_said(
    unprivileged: Callable[..., Config], supervise: Supervise
) -> None:
    code = "def f(agent): agent.push_log({'description': 'x'})"
    config = unprivileged('mine = ["f"]', '[plugin_limits.mine]\nuser = "no-such"', mine=code)
    supervisor, store = supervise(config)
    assert store.wait(lambda: store.entries), store.told
    assert any("there is no user no-such" in one for one in supervisor.states[0].missing)
    assert store.said("is not the user that it should be")


@as_root
def test_it_is_root_where_the_configuration_says_so_and_only_there(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = "import os\ndef f(agent): agent.push_log({'description': str(os.getuid())})"
    _, store = supervise(configure('mine = ["f"]', 'user = "root"', write={"mine.py": code}))
    assert store.wait(lambda: store.entries)
    assert store.entries[0].message == "0"
    assert Limits().user != "root"


def test_root_that_cannot_change_its_user_runs_no_plugin(as_agent: Callable[..., str]) -> None:
    code = "def f(agent): agent.push_log({'description': 'ran'})"
    said = as_agent(["--bounding-set=-setuid"], code)
    assert "mine.f is not run: it would be root" in said
    assert 'user = "root" below [plugin_limits]' in said
    assert "ran" not in said.split()


@as_root
def test_a_module_that_its_user_cannot_read_is_told_as_such(
    unprivileged: Callable[..., Config], supervise: Supervise
) -> None:
    config = unprivileged('mine = ["f"]', mine="def f(agent): pass")
    Path(config.plugin_paths[0]).chmod(0o700)
    _, store = supervise(config)
    assert store.wait(lambda: store.said("there is no module mine that its user may read"))


# What it starts ends with it

DAEMON = """
import os, signal, sys, time
def f(agent):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, b'%d' % os.getpid())
            time.sleep(3600)
        os._exit(0)
    os.wait()
    agent.push_log({'description': os.read(reading, 20).decode()})
"""


@pytest.mark.parametrize("end", ["    time.sleep(3600)", "    os._exit(7)", ""])
def test_what_left_its_session_does_not_outlive_it(
    configure: Callable[..., Config], supervise: Supervise, end: str
) -> None:
    if not IS_ROOT:
        pytest.skip("to find it again, root gives it a group")
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": DAEMON + end}))
    assert store.wait(lambda: store.entries), store.told
    supervisor.close() if "sleep" in end else store.wait(lambda: store.told)
    wait_for_the_end_of(int(store.entries[0].message))


def test_the_packaged_agent_ends_it_too_which_is_not_root(as_agent: Callable[..., str]) -> None:
    code = DAEMON + "    time.sleep(3600)"
    pid = as_agent(PACKAGED, code, '[plugin_limits]\nuser = "daemon"')
    wait_for_the_end_of(int(pid))


def test_a_child_in_a_session_of_its_own_ends_with_it(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = """
import subprocess, time
def f(agent):
    child = subprocess.Popen(['sleep', '3600'], start_new_session=True)
    agent.push_log({'description': str(child.pid)})
    time.sleep(3600)
"""
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.entries), store.told
    supervisor.close()
    wait_for_the_end_of(int(store.entries[0].message))


def test_a_bomb_of_processes_is_bounded_and_ends_as_a_whole(
    unprivileged: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each starts what it can, also while it is killed; that needs an agent that can find them."""
    monkeypatch.setattr(ending, "_LONGEST", 60.0)  # however busy this machine is
    code = """
import os, time
def f(agent):
    first = 0
    try:
        while True:
            child = os.fork()
            while child == 0:
                try:
                    %s
                except OSError:
                    time.sleep(0.01)
            first = first or child
    except OSError:
        agent.push_log({'description': str(first)})
    time.sleep(3600)
"""
    code %= "os.setsid(); os.fork()" if IS_ROOT else "os.setsid(); time.sleep(3600)"
    code = code.replace("os.setsid()", "os.getsid(0) == os.getpid() or os.setsid()")
    supervisor, store = supervise(unprivileged('mine = ["f"]', "processes = 20", mine=code))
    assert store.wait(lambda: store.entries), store.told
    pid, child = supervisor.states[0].pid, int(store.entries[0].message)
    assert pid is not None
    assert lives(child)
    supervisor.close()
    wait_for_the_end_of(pid)
    wait_for_the_end_of(child)
    until(lambda: not ending._members(pid))


def test_the_unit_leaves_the_agent_tasks_that_plugins_cannot_take() -> None:
    unit = (ROOT / "agent_client/packaging/files/sentinella.service").read_text()
    (tasks,) = [int(line[9:]) for line in unit.splitlines() if line.startswith("TasksMax=")]
    assert tasks >= 2 * Limits().processes


def test_a_child_that_takes_too_much_processor_time_ends_its_plugin(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_CPU_AHEAD", 0.5)
    code = """
import subprocess, time
def f(agent):
    subprocess.Popen(['sh', '-c', 'while :; do :; done'])
    time.sleep(3600)
"""
    _, store = supervise(configure('mine = ["f"]', "cpu = 1", write={"mine.py": code}))
    assert store.wait(lambda: store.said("more than 1 % of a processor"), 60), store.told


# What it sends


def test_rubbish_is_counted_and_what_follows_is_taken(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    code = """
def f(agent):
    raw = agent._channel._connection.sendall
    for rubbish in (b'\\xff\\xfe\\x00', b'[' * 100000, b'{"push":', b'3', b'null', b'"x"', b'\\0'):
        raw(rubbish + b'\\n')
    raw(b'{"push": {"plugins": {"a": {"b": {"value": ' + b'9' * 1000000 + b'}}}}}\\n')
    raw(b'{"hello": {"holds": ["everything"], "missing": []}}\\n')
    agent.push_log({'description': 'still here'})
"""
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.entries), store.told
    (state,) = supervisor.states
    assert state.refused == 7
    assert not store.points
    assert "everything" not in state.holds, "what confines it is said before its own code runs"


@pytest.mark.parametrize(
    ("code", "limit", "said"),
    [
        ("while True: raw(b'x' * 65536)", ("_LONGEST_LINE", 2**20), "a line of more than"),
        ("while True: raw(b'x')", ("_FLOOD", 500), "more than 500 lines or pieces"),
        ("while True: raw(b'{}\\n')", ("_FLOOD", 500), "more than 500 lines or pieces"),
        ("while True: raw(b'[' + b'1,' * 9999 + b'1]\\n')", ("_FLOOD_BYTES", 2**20), "bytes in a"),
    ],
)
def test_one_that_floods_is_ended_and_the_others_go_on(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch,
    code: str, limit: tuple[str, int], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(supervisors, *limit)
    text = f"def f(agent):\n    raw = agent._channel._connection.sendall\n    {code}"
    both = 'mine = ["f"]\nnative = ["native"]'
    _, store = supervise(configure(both, write={"mine.py": text}))
    assert store.wait(lambda: store.said(said)), store.told
    before = len(store.points)
    assert store.wait(lambda: len(store.points) > before + 2)


def test_more_bytes_than_a_minute_may_bring_are_refused(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_BYTES_A_MINUTE", 20_000)
    code = """
def f(agent):
    try:
        while True:
            agent.push({'plugins': {'a': {str(i): {'value': i} for i in range(100)}}})
    except Exception as error:
        raise SystemExit(str(error))
"""
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.said("more than 20000 bytes a minute")), store.told
    assert 0 < len(store.points) < 20_000
    assert supervisor.states[0].refused >= 1


def test_one_that_writes_without_end_to_standard_error_costs_the_agent_little(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_ERROR_READS", 3)
    code = """
import os, threading, time
def f(agent):
    def write():
        while True:
            os.write(2, b'x' * 4096)
            os.write(1, b'x' * 4096)
    threading.Thread(target=write, daemon=True).start()
    while True:
        agent.push({'plugins': {'a': {'b': {'value': 1}}}})
        time.sleep(0.02)
"""
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    assert store.wait(lambda: store.points), store.told
    plugin = supervisor._plugins["mine.f"]
    most = 0

    def looked() -> bool:
        nonlocal most
        most = max(most, plugin.error_reads)
        return len(store.points) > 20 and most > 3

    assert store.wait(looked)
    assert most == 4, "then it is left until the next look"
    assert len(plugin.errors) <= 4096
    assert not store.told


def test_one_that_does_not_read_its_answers_is_ended(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_ANSWER_SECONDS", 0.1)
    code = """
import os, signal
def f(agent):
    if os.fork() == 0:
        while True:
            agent._channel._connection.sendall(b'{"push": {"plugins": {}}}\\n')
    os.kill(os.getpid(), signal.SIGSTOP)
"""
    both = 'mine = ["f"]\nnative = ["native"]'
    _, store = supervise(configure(both, write={"mine.py": code}))
    assert store.wait(lambda: store.said("does not read its answers")), store.told
    before = len(store.points)
    assert store.wait(lambda: len(store.points) > before)


# What hangs


def test_one_that_hangs_while_it_starts_is_killed_and_started_again(
    configure: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "_BACK_OFF_FROM", 0.01)
    code = "import time\ntime.sleep(3600)\ndef f(agent): pass"
    supervisor, store = supervise(configure('mine = ["f"]', write={"mine.py": code}))
    until(lambda: supervisor.states and supervisor.states[0].holds)
    first = supervisor.states[0].pid
    supervisor._plugins["mine.f"].sign_at = time.monotonic() - 3600
    assert store.wait(lambda: store.said("gave no sign of life for 600 s"))
    until(lambda: supervisor.states[0].pid not in (None, first))
    assert first is not None
    wait_for_the_end_of(first)


STANDS_STILL = """
import os, signal
def f(agent):
    agent.push_log({'description': str(os.getpid())})
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_what_stands_still_holds_up_neither_a_reload_nor_the_end(
    configure: Callable[..., Config], supervise: Supervise
) -> None:
    names = [f"still{number}" for number in range(4)]
    still = "\n".join(f'{name} = ["f"]' for name in names)
    files = {f"{name}.py": STANDS_STILL for name in names}
    supervisor, store = supervise(configure(still, write=files))
    assert store.wait(lambda: len(store.entries) == 4), store.told
    pids = [int(entry.message) for entry in store.entries]
    rest = "\n".join(f'{name} = ["f"]' for name in names[1:])
    supervisor.use(configure(rest + '\nnative = ["native"]'))
    assert store.wait(lambda: store.points), "what is new starts though something stands still"
    assert len(supervisor.states) == 4
    began = time.monotonic()
    supervisor.close()
    assert time.monotonic() - began < 10
    for pid in pids:
        wait_for_the_end_of(pid)


# What it may not reach

LOOKS = """
import ctypes, json, os, signal, socket, tempfile
def f(agent):
    found = {}
    def attempt(name, act):
        try:
            act()
            found[name] = 'works'
        except OSError as error:
            found[name] = error.strerror or str(error)
    state, agents = %(state)r, %(agent)d
    for name in ('agent.toml', 'spool.db', 'status.json'):
        attempt(name, lambda: open(os.path.join(state, name)).read())
        attempt('through /proc: ' + name,
                lambda: open('/proc/self/root' + state + '/' + name).read())
    attempt('list', lambda: os.listdir(state))
    attempt('environ', lambda: open('/proc/%%d/environ' %% agents).read())
    attempt('memory', lambda: open('/proc/%%d/mem' %% agents, 'rb').read(1))
    attempt('root', lambda: os.listdir('/proc/%%d/root/' %% agents))
    attempt('descriptors', lambda: os.readlink(
        '/proc/%%d/fd/%%s' %% (agents, os.listdir('/proc/%%d/fd' %% agents)[0])))
    attempt('a descriptor', lambda: open('/proc/%%d/fd/0' %% agents))
    attempt('kill', lambda: os.kill(agents, 0))
    attempt('all', lambda: os.kill(1, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    def trace():
        if libc.ptrace(0x4206, agents, 0, 0) != 0:  # PTRACE_SEIZE, which stops nobody
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    attempt('trace', trace)
    def inbox():
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(os.path.join(state, 'send.sock'))
    attempt('inbox', inbox)
    attempt('datagram', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
        b'x', ('127.0.0.1', 9)))
    attempt('datagram6', lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(
        b'x', ('::1', 9)))
    here = os.path.dirname(__file__)
    attempt('own module', lambda: open(__file__, 'a'))
    attempt('own folder', lambda: open(os.path.join(here, 'new.py'), 'w'))
    attempt('link', lambda: os.symlink('/etc/passwd', os.path.join(here, 'link')))
    attempt('tmp', lambda: tempfile.TemporaryFile(dir='/tmp'))
    attempt('user', lambda: os.setuid(0))
    attempt('groups', lambda: os.setgroups([]))
    open_ones = []
    for number in range(256):
        try:
            os.fstat(number)
            open_ones.append(number)
        except OSError:
            pass
    found['descriptors open'] = len(open_ones)
    found['environment'] = sorted(os.environ)
    agent.push_log({'description': json.dumps(found)})
"""


@pytest.fixture
def found(
    unprivileged: Callable[..., Config], supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What a plugin finds that it may do beside a running agent that has secrets."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)  # it is the agent's own directory that keeps others out
    state = place / "state"
    state.mkdir(0o700)
    for name in ("agent.toml", "spool.db", "status.json"):
        (state / name).write_text("snt_secret")
        (state / name).chmod(0o600)
    monkeypatch.setenv("SENTINELLA_KEY", "snt_secret")
    inbox = Inbox(str(state), lambda points, entries: None)
    code = LOOKS % {"state": str(state), "agent": os.getpid()}
    _, store = supervise(unprivileged('mine = ["f"]', mine=code))
    assert store.wait(lambda: store.entries), store.told
    yield json.loads(store.entries[0].message)
    inbox.close()
    shutil.rmtree(place)


@needs_landlock
def test_it_reads_nothing_of_the_agent_and_nothing_of_its_process(found: dict[str, Any]) -> None:
    named = [name for name in found if name.endswith((".toml", ".db", ".json"))]
    assert len(named) == 6
    for name in [
        *named,
        "list",
        "environ",
        "memory",
        "root",
        "descriptors",
        "a descriptor",
        "trace",
    ]:
        assert found[name] in ("Permission denied", "Operation not permitted"), name


@needs_landlock
def test_it_writes_nowhere_and_changes_nothing_of_itself(found: dict[str, Any]) -> None:
    for name in ("own module", "own folder", "link", "tmp"):
        assert found[name] == "Permission denied", name
    assert (found["user"], found["groups"]) == ("Operation not permitted",) * 2


def test_it_inherits_its_own_socket_and_nothing_else(found: dict[str, Any]) -> None:
    assert found["descriptors open"] == 4, "three of every process, and the one to the agent"
    assert "SENTINELLA_KEY" not in found["environment"]


def test_it_sends_nothing_to_the_network_by_datagrams_either(found: dict[str, Any]) -> None:
    assert found["datagram"] != "works"
    assert found["datagram6"] != "works"


@pytest.mark.skipif(landlock_version() < 6 and not IS_ROOT, reason="same user, older Landlock")
def test_it_signals_nobody(found: dict[str, Any]) -> None:
    assert (found["kill"], found["all"]) == ("Operation not permitted",) * 2


@as_root
def test_it_cannot_speak_through_the_agents_inbox(found: dict[str, Any]) -> None:
    assert found["inbox"] == "Permission denied"


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="not known how")
def test_without_a_network_of_its_own_it_can_make_local_sockets_alone() -> None:
    """What seccomp does where the agent may make no namespace, as its unit may not."""
    code = """
import ctypes, errno, os, socket, subprocess, sys
sys.path.insert(0, ROOT)
from agent_client.plugins import seccomp
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
seccomp.no_internet(libc)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, 40):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            print('made', family, kind)
        except PermissionError as error:
            assert error.errno == errno.EACCES
assert libc.syscall(425, 8, None) == -1 and ctypes.get_errno() == errno.EACCES
socket.socket(socket.AF_UNIX).close()
socket.socketpair()
print(subprocess.run(['cat'], input=b'still works', stdout=-1).stdout.decode())
""".replace("ROOT", repr(str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("still works", "")


# Whose code it is


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "plugins" / "mine").mkdir(parents=True)
    (tmp_path / "plugins" / "mine" / "__init__.py").write_text("def f(agent): pass")
    (tmp_path / "plugins" / "mine" / "more.py").write_text("")
    for path in (tmp_path / "plugins").rglob("*"):
        path.chmod(0o755)
    (tmp_path / "plugins").chmod(0o755)
    return tmp_path / "plugins"


def unsafe(place: Path) -> str:
    return plugin_modules.unsafe("sentinella.mine", [str(place), "/nowhere"])


def test_code_that_nobody_else_can_change_is_run(place: Path) -> None:
    assert unsafe(place) == ""
    (place / "mine" / "again").symlink_to(place / "mine")
    (place / "mine" / "broken").symlink_to("/nowhere/at/all")
    assert unsafe(place) == ""


@pytest.mark.parametrize("loose", ["", "mine", "mine/__init__.py", "mine/more.py"])
def test_code_that_others_may_write_to_is_not_run(place: Path, loose: str) -> None:
    (place / loose).chmod(0o777)
    assert unsafe(place) == f"others may write to {place / loose}: chmod go-w {place / loose}"


def test_a_directory_above_that_others_may_write_to_is_as_bad(place: Path) -> None:
    above = place.parent
    above.chmod(0o777)
    try:
        assert unsafe(place) == f"others may write to {above}: chmod o-w {above}"
        above.chmod(0o1777)
        assert unsafe(place) == "", "where each takes away his own only, as in /tmp"
    finally:
        above.chmod(0o700)


def test_a_link_is_as_good_as_what_it_leads_to(place: Path) -> None:
    elsewhere = place.parent / "elsewhere.py"
    elsewhere.write_text("")
    (place / "mine" / "more.py").unlink()
    (place / "mine" / "more.py").symlink_to(elsewhere)
    assert unsafe(place) == ""
    elsewhere.chmod(0o666)
    assert "others may write to" in unsafe(place)


@as_root
@pytest.mark.parametrize("owner", [(65_533, 0), (0, 65_533)])
def test_code_of_another_user_or_group_is_not_run(place: Path, owner: tuple[int, int]) -> None:
    module = place / "mine" / "more.py"
    os.chown(module, *owner)
    module.chmod(0o664)
    assert unsafe(place).startswith(
        f"{module} belongs to user 65533" if owner[0] else f"others may write to {module}"
    )


def test_unsafe_code_is_told_with_its_mend_and_never_started(
    configure: Callable[..., Config], supervise: Supervise, folder: Path
) -> None:
    config = configure('native = ["native"]\nthread = ["thread"]')
    (folder / "native.py").chmod(0o666)
    supervisor, store = supervise(config)
    assert store.wait(lambda: store.said("native.native is not run: others may write to"))
    assert store.wait(lambda: store.points), "the others run"
    assert {one.tags["module"] for one in store.points} == {"thread"}
    state = next(one for one in supervisor.states if one.name == "native.native")
    assert (state.ok, state.pid, state.pushes) == (False, None, 0)
