"""The command line: what an operator types, what a script gets, how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_client import cli
from agent_client.config import load
from agent_client.discovery.host import Host
from agent_client.discovery.look import Discovery
from agent_client.spool import Spool
from agent_client.verbs.common import iso_times, visible
from agent_client.wire import SUPPRESSION_PATH

from .conftest import KEY, ReportServer, problem
from .recorded import RecordedHost

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_client.cli", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environ}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls a verb in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def running(
    server: ReportServer, write_config: Callable[..., Path]
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """An agent at work, which has reported once, and its configuration."""
    config = write_config(server.url)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", "--config", str(config), "run"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.wait_for(lambda: len(server.reports) >= 1)
    yield config, process
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def answering(body: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """What a server says that knows the door, and nothing else."""
    return lambda _: (200, {"Content-Type": "application/json"}, json.dumps(body).encode())


# The program


def test_help_names_every_verb_and_each_has_its_own(call: Callable[..., Any]) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for verb in cli.VERBS:
        assert f"  {verb} " in out
        assert call(verb, "--help")[0] == 0


def test_without_a_verb_it_says_what_there_is_and_fails(call: Callable[..., Any]) -> None:
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "Commands:" in err


@pytest.mark.parametrize("wrong", [["nothing"], ["status", "--wrong"], ["enable"], ["send"]])
def test_a_usage_error_is_one_line_and_exit_code_2(
    call: Callable[..., Any], wrong: list[str]
) -> None:
    code, _, err = call(*wrong)
    assert code == 2
    if wrong != ["send"]:
        assert err.startswith("sentinella: ")
        assert err.count("\n") == 1


def test_the_options_before_the_verb_are_the_originals(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("sentinella, version 2.")
    path = tmp_path / "a.toml"
    path.write_text('[agent]\nhost = "named"\n')
    for order in (["-c", path, "check-config"], ["check-config", "--config", path]):
        code, out, _ = call(*order)
        assert code == 0
        assert "host      named" in out


def test_the_pid_file_is_there_as_long_as_the_agent(
    server: ReportServer, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    pid = tmp_path / "agent.pid"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "agent_client.cli", "-c", str(write_config(server.url)),
            "-p", str(pid), "run",
        ],
        cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.wait_for(lambda: len(server.reports) >= 1)
        assert int(pid.read_text()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not pid.exists()
    finally:
        process.kill()
        process.wait()


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    shell = f"'{sys.executable}' -m agent_client.cli check --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    script = run("completion", "bash")
    assert script.returncode == 0
    assert (
        subprocess.run(["bash", "-n"], input=script.stdout, text=True, check=False).returncode == 0
    )
    program = tmp_path / "sentinella"
    program.write_text(
        f'#!/bin/sh\ncd {ROOT} && exec "{sys.executable}" -c '
        f'"import sys; sys.argv[0] = \\"sentinella\\"; from agent_client.cli import main; '
        f'sys.exit(main())"\n'
    )
    program.chmod(0o755)
    completes = (
        f'PATH="{tmp_path}:$PATH"; eval "$(cat)"; COMP_WORDS=(sentinella ma); COMP_CWORD=1; '
        "_sentinella_completion sentinella; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "-c", completes], input=script.stdout, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "maintenance", done.stderr


# init


def test_init_writes_a_private_configuration_from_options_and_enrols(
    server: ReportServer, tmp_path: Path
) -> None:
    path = tmp_path / "etc" / "agent.toml"
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    done = run(
        "-c", str(path), "init", "--token", "snt_once", "--interval", "30s", "--remote",
        "--os-auth-url", "http://k/v3", "--os-user", "u", "--os-project", "p",
        "--os-password-file", str(tmp_path / "secret"), "--json",
        SENTINELLA_SERVER=server.url, SENTINELLA_STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "config": str(path), "server": server.url, "enrolled": True,
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    config = load(str(path), {})
    assert (config.server, config.key, config.interval) == (server.url, KEY, 30)
    assert config.remote
    assert config.openstack.enabled
    assert config.warnings == ()
    assert server.requests[0]["headers"]["Authorization"] == "Bearer snt_once"


def test_init_leaves_a_configuration_that_is_there(
    tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("# mine\n")
    monkeypatch.setenv("SENTINELLA_KEY", "snt_a_b")
    code, _, err = call("-c", path, "init", "--server", "http://s")
    assert (code, path.read_text()) == (2, "# mine\n")
    assert "--force" in err
    assert call("-c", path, "init", "--server", "http://s", "--force")[0] == 0
    assert load(str(path), {}).key == "snt_a_b"


def test_init_asks_for_nothing_without_a_terminal(tmp_path: Path, call: Callable[..., Any]) -> None:
    for given in ([], ["--server", "http://s"], ["--server", "ftp://s", "--key-file", "/k"]):
        code, _, err = call("-c", tmp_path / "none.toml", "init", *given)
        assert code == 2
        assert err.count("\n") == 1
    assert not (tmp_path / "none.toml").exists()


def test_init_asks_at_a_terminal(server: ReportServer, tmp_path: Path) -> None:
    import pty

    path = tmp_path / "agent.toml"
    answers = [server.url, "snt_once", "n", "n", "y"]
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", "-c", str(path), "init"],
        cwd=ROOT, stdin=other, stdout=other, stderr=other, close_fds=True,
        env={**os.environ, "SENTINELLA_STATE_DIR": str(tmp_path / "state")},
    )  # fmt: skip
    os.close(other)
    seen = b""
    try:
        for answer, asked in zip(
            answers, (b"Sentinella server", b"token", b"proxy", b"APIs", b"May"), strict=True
        ):
            while asked not in seen:
                seen += os.read(main, 4096)
            os.write(main, answer.encode() + b"\n")
        assert process.wait(30) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(main)
    assert b"snt_once" not in seen, "a token is not echoed"
    config = load(str(path), {})
    assert (config.server, config.key, config.remote) == (server.url, KEY, True)


# enrol, check-config


def test_a_token_that_is_not_accepted_is_exit_code_3(
    server: ReportServer, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINELLA_STATE_DIR", str(tmp_path / "state"))
    server.refuse = lambda body: problem(401)
    path = tmp_path / "agent.toml"
    code, _, err = call("-c", path, "enrol", "--server", server.url, "--token", "snt_spent")
    assert code == 3
    assert "good once and for an hour" in err
    assert not path.exists()


def test_check_config_says_what_it_means_without_secrets(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[agent]\nserver = "http://s"\nkey = "snt_hidden"\n[services]\nnova-cert = false\n'
        '[collectors]\nnot-there = false\n[[drop]]\nmeasurement = "net*"\ntags = { a = "b*" }\n'
    )
    path.chmod(0o600)
    code, out, _ = call("-c", path, "check-config")
    assert code == 1
    assert "not-there: there is no such collector" in out
    assert "drop      net* [a = b*]: whole points" in out
    assert "nova-cert: not watched" in out
    code, as_json, _ = call("-c", path, "check-config", "--json")
    assert json.loads(as_json)["key"] is True
    assert "snt_hidden" not in out + as_json


# check, tail


def test_check_runs_collectors_once_and_sends_nothing(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[[drop]]\nmeasurement = "load"\nfields = ["load1*"]\n')
    code, out, _ = call("-c", path, "check", "load", "memory", "--json")
    said = json.loads(out)
    assert code == 0
    fields = {point["measurement"]: set(point["fields"]) for point in said["points"]}
    assert fields["load"] == {"load5", "load_per_core"}
    assert "available" in fields["memory"]
    assert [state["name"] for state in said["collectors"]] == ["load", "memory"]
    code, _, err = call("-c", path, "check", "nothing")
    assert code == 2
    assert "there is no collector nothing" in err


def test_check_ends_with_1_when_a_collector_fails(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent_client.collectors.load import Load

    def fail(self: Load, points: object) -> None:
        raise OSError("the kernel is shy")

    monkeypatch.setattr(Load, "collect", fail)
    path = tmp_path / "a.toml"
    path.touch()
    code, out, _ = call("-c", path, "check", "load")
    assert code == 1
    assert "load: FAILS: OSError: the kernel is shy" in out


def test_tail_shows_what_the_agent_would_read_and_moves_no_position(
    call: Callable[..., Any], write_config: Callable[..., Path], logs: Path, tmp_path: Path
) -> None:
    (logs / "nova.log").write_text(
        "2026-11-22 10:00:00.000 1 ERROR nova [-] it broke\n"
        "2026-11-22 10:00:00.500 1 WARNING nova [-] rabbit://nova:s3cr3t@mq/\n"
        "2026-11-22 10:00:01.000 1 INFO nova [-] it works\n"
    )
    config = write_config("http://127.0.0.1:9")
    code, out, _ = call("-c", config, "tail", "--once")
    assert code == 0
    assert "it broke" in out
    assert "rabbit://nova:***@mq/" in out
    code, out, _ = call("-c", config, "tail", "nova", "--once", "--level", "error", "--json")
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["it broke"]
    assert not (tmp_path / "state").exists()
    code, _, said = call("-c", config, "tail", "glance", "--once")
    assert (code, said) == (
        1,
        "sentinella: no log of glance is followed; there are those of nova\n",
    )


# What logs and processes say, on a terminal


NASTY = "a\x1bc\x1b]0;owned\x07b\x9b31mc\u202etxt"


def on_a_terminal(*arguments: str) -> str:
    """What a person sees who types this."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", *arguments],
        cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    said = b""
    while True:
        try:
            came = os.read(master, 65_536)
        except OSError:  # the other end is closed
            break
        if not came:
            break
        said += came
    os.close(master)
    process.wait(60)
    return said.decode("utf-8", "replace")


def test_a_log_line_does_nothing_to_the_terminal_of_who_tails_it(
    write_config: Callable[..., Path], logs: Path
) -> None:
    (logs / "nova.log").write_text(f"2026-11-22 10:00:00.000 1 ERROR nova [-] {NASTY}\n")
    config = str(write_config("http://127.0.0.1:9"))
    shown = on_a_terminal("-c", config, "tail", "--once")
    assert r"a\x1bc\x1b]0;owned\x07b\x9b31mc\u202etxt" in shown
    assert "\x1b[31mERROR" in shown, "our own colours are left"
    for harm in ("\x1bc", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert harm not in shown
    as_json = on_a_terminal("-c", config, "tail", "--once", "--json")
    assert json.loads(as_json)["message"].endswith(NASTY)
    assert as_json.strip().isprintable()
    assert NASTY in run("-c", config, "tail", "--once").stdout, "a pipe gets what was read"


def test_what_a_collector_or_a_file_is_called_cannot_forge_a_line(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = str(write_config("http://127.0.0.1:9"))
    state = tmp_path / "state"
    state.mkdir()
    name = "x\nproblem   all is well\x1b[1A"
    log = {"path": name, "ok": False, "detail": name, "events": 0, "behind": 0}
    (state / "status.json").write_text(json.dumps({"logs": [log], "cycles": 1}))
    shown = on_a_terminal("-c", config, "status")
    assert r"x\nproblem   all is well\x1b[1A" in shown
    assert "\nproblem   all is well" not in shown.replace("\r", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, wörter, 日本", "plain, wörter, 日本"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x00\x1b\x7f\x85\r", r"\x00\x1b\x7f\x85\r"),
        ("\u200b\u2066\udc80", r"\u200b\u2066\udc80"),
    ],
)
def test_control_characters_are_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


# Times


def test_times_are_the_same_in_the_json_of_every_verb() -> None:
    said = {
        "until": 1_800_014_400, "began_at": 1_800_014_400.25, "last_error_at": None,
        "logs": [{"at": 0.0}], "seconds": 5, "rate": 1.5, "at": "as it is", "ok_at": True,
        "gone_at": 1e300,
    }  # fmt: skip
    assert iso_times(said) == {
        "until": "2027-01-15T12:00:00.000Z", "began_at": "2027-01-15T12:00:00.250Z",
        "last_error_at": None, "logs": [{"at": "1970-01-01T00:00:00.000Z"}], "seconds": 5,
        "rate": 1.5, "at": "as it is", "ok_at": True, "gone_at": "1e+300",
    }  # fmt: skip


# send


def test_json_may_be_asked_for_before_or_after_what_is_sent(
    server: ReportServer, write_config: Callable[..., Path], call: Callable[..., Any]
) -> None:
    config = write_config(server.url)
    for order in (["--json", "metric", "a", "b=1"], ["metric", "a", "b=1", "--json"]):
        code, out, _ = call("-c", config, "send", *order)
        assert (code, json.loads(out)) == (0, {"stored": True, "how": "sent"})
    assert call("-c", config, "send", "metric", "a", "b=1")[1] == ""


def test_what_a_script_sends_is_in_the_running_agents_spool_when_it_returns(
    server: ReportServer, running: tuple[Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    config, process = running
    server.refuse = lambda body: problem(503)
    sent = run(
        "-c", str(config), "send", "metric", "backup", "seconds=41.5", "bytes=9e9",
        "--tag", "target=s3", "--json",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    assert json.loads(sent.stdout) == {"stored": True, "how": "spooled"}
    event = run("-c", str(config), "send", "event", "backup failed", "-l", "error", "-s", "backup")
    assert event.returncode == 0, event.stderr
    process.kill()
    process.wait()
    spool = Spool(str(tmp_path / "state"))
    waiting = [json.loads(one.json()) for one in spool.oldest(100, 10**7)]
    spool.close()
    points = [point for report in waiting for point in report.get("points", [])]
    assert {
        "measurement": "backup",
        "fields": {"seconds": 41.5, "bytes": 9e9},
        "tags": {"target": "s3"},
    } in points
    events = [event for report in waiting for event in report.get("events", [])]
    assert [(one["message"], one["level"], one["service"]) for one in events] == [
        ("backup failed", "error", "backup")
    ]


def test_what_is_sent_reaches_the_server_without_waiting_for_the_next_cycle(
    server: ReportServer, write_config: Callable[..., Path]
) -> None:
    config = write_config(server.url, interval=3600)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_client.cli", "-c", str(config), "run"],
        cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.wait_for(lambda: len(server.reports) >= 1)
        assert run("-c", str(config), "send", "event", "now").returncode == 0
        assert server.wait_for(lambda: "now" in server.messages())
    finally:
        process.kill()
        process.wait()


def test_without_an_agent_it_is_sent_directly_and_kept_if_the_server_is_away(
    server: ReportServer, write_config: Callable[..., Path]
) -> None:
    config = str(write_config(server.url))
    done = run("-c", config, "send", "event", "one", "--json")
    assert json.loads(done.stdout)["how"] == "sent"
    assert server.messages() == ["one"]
    server.refuse = lambda body: problem(503)
    done = run("-c", config, "send", "metric", "x", "y=-1")
    assert done.returncode == 0
    assert "kept" in done.stdout
    server.refuse = lambda body: None
    assert run("-c", config, "run", "--once").returncode == 0
    sent = [point for report in server.reports.values() for point in report.get("points", [])]
    assert {"measurement": "x", "fields": {"y": -1.0}} in sent


@pytest.mark.parametrize(
    "wrong",
    [
        ["metric", "x"],
        ["metric", "x", "y"],
        ["metric", "x", "y=many"],
        ["metric", "x", "y=nan"],
        ["metric", "x y", "y=1"],
        ["metric", "x", "y=1", "--tag", "z"],
        ["event", "  "],
        ["event", "x", "--level", "loud"],
        ["event", "x", "--service", "s" * 300],
    ],
)
def test_nonsense_is_refused_before_anything_is_stored(
    call: Callable[..., Any], write_config: Callable[..., Path], wrong: list[str], tmp_path: Path
) -> None:
    code, _, err = call("-c", write_config("http://127.0.0.1:9"), "send", *wrong)
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "state").exists()


def test_an_agent_answers_each_line_of_many_senders(
    running: tuple[Path, subprocess.Popen[str]], server: ReportServer, tmp_path: Path
) -> None:
    from agent_client.inbox import Unstorable, hand_over

    def send(number: int) -> None:
        hand_over(
            str(tmp_path / "state"),
            [{"message": f"{number}.{one}", "level": "info"} for one in range(50)],
        )

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = {f"{number}.{one}" for number in range(8) for one in range(50)}
    assert server.wait_for(lambda: expected <= set(server.messages()))
    assert len([one for one in server.messages() if one in expected]) == 400
    with pytest.raises(Unstorable, match="level"):
        hand_over(str(tmp_path / "state"), [{"message": "x", "level": "loud"}])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"measurement": "x", "fields": {"y": 1' + b"0" * 400 + b"}}", "field y: must be finite"),
        (b'{"measurement": "x\\n", "fields": {"y": 1}}', "letters, digits"),
        (b"[" * 20_000, "nested too deeply"),
        (b'{"message": "\xff"}', "utf-8"),
    ],
)
def test_what_no_sender_should_say_is_answered_and_the_next_is_heard(
    tmp_path: Path, line: bytes, said: str
) -> None:
    from agent_client.inbox import Inbox, hand_over

    stored: list[Any] = []
    inbox = Inbox(str(tmp_path), lambda points, entries: stored.extend(entries))
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(tmp_path / "send.sock"))
            connection.sendall(line + b"\n")
            answer = connection.recv(4096)
        assert said in json.loads(answer)["error"]
        hand_over(str(tmp_path), [{"message": "still here"}], timeout=10)
    finally:
        inbox.close()
    assert [entry.message for entry in stored] == ["still here"]


# maintenance, blackout


def test_maintenance_says_how_long_and_why_with_the_servers_own_key(
    server: ReportServer, write_config: Callable[..., Path], call: Callable[..., Any]
) -> None:
    server.refuse = answering(
        {"server": "n", "kind": "maintenance", "until": 1_800_014_400, "ended": False}
    )
    config = write_config(server.url)
    code, out, _ = call("-c", config, "maintenance", "20m", "kernel update")
    assert code == 0
    assert "is in maintenance until 2027-01-15" in out
    (request,) = server.requests
    assert request["path"] == SUPPRESSION_PATH
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    assert request["body"] == {
        "kind": "maintenance", "seconds": 1200.0, "reason": "kernel update",
    }  # fmt: skip
    server.refuse = answering({"server": "n", "kind": "blackout", "until": None, "ended": True})
    code, out, _ = call("-c", config, "blackout", "--end", "--json")
    assert (code, json.loads(out)["ended"]) == (0, True)
    server.refuse = answering(
        {"server": "n", "kind": "maintenance", "until": 1_800_014_400, "ended": False}
    )
    code, out, _ = call("-c", config, "blackout", "4h", "disk", "--json")
    assert json.loads(out)["until"] == "2027-01-15T12:00:00.000Z"
    server.refuse = answering({"server": "n", "kind": "blackout", "until": None, "ended": True})
    assert call("-c", config, "blackout", "--end")[0] == 0
    assert server.requests[-1]["path"] == SUPPRESSION_PATH + "/end"
    assert call("-c", config, "maintenance", "end")[0] == 0
    assert server.requests[-1]["path"] == SUPPRESSION_PATH + "/end"
    assert server.requests[-1]["body"] == {"kind": "maintenance"}


def test_a_refusal_says_which_value_is_wrong_and_why(
    server: ReportServer, write_config: Callable[..., Path], call: Callable[..., Any]
) -> None:
    said = {
        "detail": "One or more fields are not valid; see errors.",
        "errors": {"seconds": [{"message": "At most 2592000.", "code": "max_value"}], "x": "odd"},
    }
    named = {"Content-Type": "application/problem+json"}
    server.refuse = lambda body: (422, named, json.dumps(said).encode())
    code, _, err = call("-c", write_config(server.url), "maintenance", "900d", "long")
    assert code == 3
    assert err.strip().endswith("refuses: seconds: At most 2592000.")


@pytest.mark.parametrize("wrong", [[], ["20m"], ["soon", "why"], ["0", "why"], ["20m", " "]])
def test_maintenance_needs_a_span_and_a_reason(
    write_config: Callable[..., Path], call: Callable[..., Any], wrong: list[str]
) -> None:
    assert call("-c", write_config("http://127.0.0.1:9"), "maintenance", *wrong)[0] == 2


def test_a_server_that_refuses_or_is_away_or_is_another_is_exit_code_3(
    server: ReportServer, write_config: Callable[..., Path], call: Callable[..., Any]
) -> None:
    server.refuse = lambda body: problem(403, "not-a-servers-key")
    code, _, err = call("-c", write_config(server.url), "blackout", "1h", "why")
    assert (code, "not-a-servers-key" in err) == (3, True)
    for nonsense in ({"hello": 1}, {"until": "x"}, {"until": 1e300}, {"until": [1]}):
        server.refuse = answering(nonsense)
        assert call("-c", write_config(server.url), "blackout", "1h", "why")[0] == 3
    server.refuse = lambda body: (200, {}, b"[" * 200_000)
    assert call("-c", write_config(server.url), "blackout", "1h", "why")[0] == 3
    assert call("-c", write_config("http://127.0.0.1:9"), "blackout", "1h", "why")[0] == 3


# show, enable, disable, clear


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A configuration and two plugins where it looks for them."""
    folder = tmp_path / "plugins"
    (folder / "docker").mkdir(parents=True)
    (folder / "docker" / "__init__.py").write_text("from docker.main import docker_stats\n")
    (folder / "mine.py").write_text("def one(agent): ...\nasync def two(agent): ...\n")
    (folder / "broken.py").write_text("def (")
    path = tmp_path / "agent.toml"
    path.write_text(f'# ours\n[agent]\nplugin_paths = ["{folder}"]\n')
    return path


def test_plugins_are_enabled_shown_disabled_and_cleared(
    plugins: Path, call: Callable[..., Any]
) -> None:
    assert "no plugin" in call("-c", plugins, "show")[1]
    code, out, _ = call("-c", plugins, "enable", "mine=one,two", "sentinella.docker=docker_stats")
    assert code == 0
    assert "SIGHUP" in out
    assert call("-c", plugins, "show")[1].splitlines() == [
        "module: mine - functions: one, two",
        "module: sentinella.docker - functions: docker_stats",
    ]
    assert call("-c", plugins, "disable", "mine=one")[0] == 0
    assert json.loads(call("-c", plugins, "show", "--json")[1])["mine"] == ["two"]
    assert call("-c", plugins, "disable", "mine=two")[0] == 0
    assert "mine" not in json.loads(call("-c", plugins, "show", "--json")[1])
    assert call("-c", plugins, "clear")[0] == 0
    assert "no plugin" in call("-c", plugins, "show")[1]
    assert plugins.read_text().startswith("# ours\n[agent]\n")


def test_what_does_not_exist_is_named_and_the_rest_enabled(
    plugins: Path, call: Callable[..., Any]
) -> None:
    code, _, err = call("-c", plugins, "enable", "mine=one,three", "nowhere=x", "broken=y")
    assert code == 1
    assert "mine has no function three" in err
    assert "there is no module nowhere" in err
    assert "broken.py cannot be read as Python" in err
    assert json.loads(call("-c", plugins, "show", "--json")[1]) == {"mine": ["one"]}
    code, _, err = call("-c", plugins, "disable", "mine=never")
    assert code == 1
    assert "was not enabled" in err


def test_plugins_are_enabled_in_the_originals_file_too(
    tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def one(agent): ...\n")
    path = tmp_path / "sentinella.conf"
    path.write_text(
        '{"api_url": "http://a", "account_key": "k",'
        ' "plugins": {"sentinella.metrics": ["get_server_usage_stats"]}}'
    )
    monkeypatch.setenv("SENTINELLA_PLUGIN_PATHS", str(tmp_path))
    assert call("-c", path, "enable", "mine=one")[0] == 0
    assert json.loads(path.read_text())["plugins"] == {
        "sentinella.metrics": ["get_server_usage_stats"], "mine": ["one"],
    }  # fmt: skip


# discover


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedHost:
    """The verbs look at this host instead of the one that they run on."""
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    monkeypatch.setattr("agent_client.discovery.look.Host", lambda: Host(str(host.root)))
    return host


def test_discover_says_what_by_what_and_what_is_uncertain(
    call: Callable[..., tuple[int, str, str]],
    write_config: Callable[..., Path],
    recorded: RecordedHost,
) -> None:
    path = write_config("http://127.0.0.1:9", discovery=True)
    recorded.unit("nova-api.service")
    recorded.process(
        500,
        "/usr/bin/python3 /usr/bin/nova-compute --config-file=/etc/nova/nova.conf",
        cgroup="/system.slice/nova-compute.service",
    )
    code, said, _ = call("-c", path, "discover")
    assert code == 0
    assert said.splitlines()[:2] == ["role      compute", "release   no OpenStack release known"]
    assert "service   nova-compute (nova)  up  1 processes" in said
    assert "            by unit nova-compute.service\n" in said
    assert "log       journal nova-compute.service as nova-compute" in said
    assert "uncertain nova-api has not been seen running, but nova-api.service is enabled" in said
    code, as_json, _ = call("-c", path, "discover", "--json")
    (service,) = json.loads(as_json)["services"]
    assert (code, service["name"], service["pids"]) == (0, "nova-compute", [500])


def test_a_service_is_forgotten_on_the_operator_s_word(
    call: Callable[..., tuple[int, str, str]],
    write_config: Callable[..., Path],
    recorded: RecordedHost,
) -> None:
    path = write_config("http://127.0.0.1:9", discovery=True)
    recorded.process(500, "/usr/bin/python3 /usr/bin/nova-cert")
    agent = Discovery(load(str(path), {}), Host(str(recorded.root)), pause=lambda seconds: None)
    agent.remember = True
    agent.look()
    recorded.kill(500)
    assert [found.state for found in agent.look()] == ["down"]
    assert call("-c", path, "discover", "--forget", "nova-api")[0] == 1
    assert call("-c", path, "discover", "--forget", "nova-cert") == (
        0, "nova-cert is not expected any more\n", "",
    )  # fmt: skip
    assert agent.look() == []
