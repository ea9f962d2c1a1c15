"""The agent runs on every Python from 3.8 on that this machine has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_client.cli import VERBS

from .conftest import ReportServer
from .plugin_host import GENERATOR, ME, NATIVE, THREAD

ROOT = Path(__file__).parents[2]
#: What the agent's own pyproject.toml asks for.
REQUIRED = "import sys, click, psutil; sys.version_info >= (3, 11) or __import__('tomli')"
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def interpreters(version: str) -> list[str]:
    """Interpreters of one version: this one, on the path, of pyenv, below AGENT_PYTHONS."""
    found = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found += [str(path) for path in pyenv.glob(f"versions/{version}.*/bin/python{version}")]
    found += [
        str(path)
        for place in os.environ.get("AGENT_PYTHONS", "").split(os.pathsep)
        if place
        for path in Path(place).glob(f"{version}*/bin/python")
    ]
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        found.append(sys.executable)
    return [path for path in found if path]


def runs(python: str, code: str) -> bool:
    done = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


def complete(version: str) -> str:
    """An interpreter of this version that has what the agent needs; skips the test without."""
    pythons = [path for path in interpreters(version) if runs(path, "")]
    if not pythons:
        pytest.skip(f"no Python {version} here")
    found = [path for path in pythons if runs(path, REQUIRED)]
    if not found:
        pytest.skip(f"Python {version} here lacks what the agent needs")
    return found[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_verb_is_there_on_this_python(
    version: str, server: ReportServer, write_config: Callable[..., Path]
) -> None:
    program = [complete(version), "-W", "error", "-m", "agent_client.cli"]
    config = ["--config", str(write_config(server.url))]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    listed = run("--help")
    assert listed.returncode == 0, listed.stderr
    assert all(f"  {verb} " in listed.stdout for verb in VERBS)
    checked = run("check", "load", "--json", *config)
    assert checked.returncode == 0, checked.stderr
    examined = run("doctor", "--json", *config)
    assert "findings" in json.loads(examined.stdout), examined.stderr
    sent = run(*config, "send", "event", "hello")
    assert sent.returncode == 0, sent.stderr
    assert server.messages() == ["hello"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_agent_reports_on_this_python(
    version: str, server: ReportServer, write_config: Callable[..., Path], logs: Path
) -> None:
    (logs / "nova.log").write_text("2026-11-22 10:00:00.000 1 ERROR nova [-] it broke\n")
    done = subprocess.run(
        [
            complete(version), "-W", "error", "-m", "agent_client.cli",
            "run", "--once", "--config", str(write_config(server.url)),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (report,) = server.reports.values()
    assert report["specs"]["python"].startswith(version)
    assert [event["message"] for event in report["events"]] == ["it broke"]


@pytest.mark.parametrize("version", VERSIONS)
def test_plugins_of_every_kind_run_on_this_python(
    version: str, server: ReportServer, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    python = complete(version)
    (tmp_path / "generator.py").write_text(GENERATOR.replace("from neighbour", "VALUE = 9 #"))
    (tmp_path / "native.py").write_text(NATIVE)
    (tmp_path / "thread.py").write_text(THREAD)
    plugins = 'generator = ["bare"]\nnative = ["native"]\nthread = ["thread"]\n'
    limits = f'[plugin_limits]\nuser = "{ME}"\n'
    config = write_config(server.url, extra=f"[plugins]\n{plugins}{limits}")
    process = subprocess.Popen(
        [python, "-W", "error", "-m", "agent_client.cli", "-c", str(config), "run"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SENTINELLA_PLUGIN_PATHS": str(tmp_path)},
    )  # fmt: skip

    def kinds() -> set[str]:
        points = (one for report in server.reports.values() for one in report.get("points", []))
        return {
            one.get("tags", {}).get("plugin", one["measurement"])
            for one in points
            if one["measurement"] in ("plugin", "queue")
        }

    arrived = server.wait_for(lambda: kinds() >= {"bare", "queue", "thread"}, 30)
    process.terminate()
    _, stderr = process.communicate(timeout=20)
    assert arrived, (kinds(), stderr)
    assert process.returncode == 0, stderr
