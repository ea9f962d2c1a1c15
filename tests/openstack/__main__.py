"""`python -m tests.openstack up|down|start SERVICE|stop SERVICE|status|exec CMD…|install`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.openstack import host, layer
from tests.openstack.host import SERVICES, Failed, order
from tests.openstack.layer import PACKAGES_LAYER, PREPARED_LAYER, RUN, STATE, CannotRun

_NAMESPACES = ["--mount", "--uts", "--ipc", "--net", "--pid"]


def main(words: list[str]) -> int:
    verbs = {
        "up": up, "down": down, "start": start, "stop": stop, "status": status,
        "exec": inside, "install": install, "_install": layer.install, "_host": host.main,
        "_populate": _populate,
    }  # fmt: skip
    if not words or words[0] not in verbs:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    verb, rest = words[0], words[1:]
    try:
        if verb == "_host":
            return host.main(rest[0], Path(rest[1]))
        return verbs[verb](*rest) or 0
    except (CannotRun, Failed) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1


def install() -> None:
    """Packages, then configuration and databases: each once for each state of its sources."""
    layer.check_machine()
    stamp = layer.packages_stamp()
    if not layer.fits(PACKAGES_LAYER, stamp):
        say("installing Debian's packages into an overlay, 1.5 GB")
        shutil.rmtree(PACKAGES_LAYER, ignore_errors=True)
        _python(["unshare", "--mount"], "_install").check_returncode()
        (PACKAGES_LAYER / "stamp").write_text(stamp)
    stamp = layer.prepared_stamp()
    if not layer.fits(PREPARED_LAYER, stamp):
        say("making databases, users, endpoints")
        _no_cloud()
        shutil.rmtree(PREPARED_LAYER, ignore_errors=True)
        RUN.mkdir(parents=True, exist_ok=True)
        files = str(PREPARED_LAYER / "files")
        done = _python(_apart(), "_host", "prepare", files)
        if done.returncode:
            raise Failed("the cloud could not be prepared")
        (PREPARED_LAYER / "stamp").write_text(stamp)


def up() -> None:
    """Install what is missing, start everything, and return when every service is up."""
    layer.check_machine()
    if _pid() is not None:
        say("already up")
        return
    install()
    try:
        _up()
    except Failed:
        down()
        raise


def _up() -> None:
    _no_cloud()
    RUN.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    subprocess.run(
        ["cp", "-a", "--reflink=auto", str(PREPARED_LAYER / "files"), str(RUN / "files")],
        check=True,
    )
    with (RUN / "host.log").open("wb") as output:
        subprocess.Popen(
            [*_apart(), *_module(), "_host", "serve", str(RUN / "files")],
            cwd=layer.REPOSITORY, env=_environment(), stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    _wait(host.CONTROL.exists, 30, "the host")
    for names in _waves():
        for name in names:
            order("spawn", name)
        for name in names:
            order("ready", name)
        say(f"{time.monotonic() - began:.0f} s: {', '.join(names)}")
    if inside("--", *_module(), "_populate"):
        raise Failed("the cloud runs, but not all of it is well")
    say(f"up after {time.monotonic() - began:.0f} s; inside: python -m tests.openstack exec bash")


def _waves() -> list[list[str]]:
    """Services in the order of their needs; those of one wave start together."""
    first = ["mariadb", "rabbitmq-server", "memcached"]
    second = ["keystone"]
    rest = [one.name for one in SERVICES if one.name not in first + second]
    apis = [name for name in rest if "api" in name or name == "haproxy"]
    called = ["nova-conductor", "neutron-rpc-server"]
    others = [name for name in rest if name not in apis + called]
    return [first, second, apis, called, others]


def down() -> None:
    """End every service and throw away what they wrote."""
    pid = _pid()
    if pid is not None:
        try:
            order("end")
        except Failed:
            os.kill(pid, signal.SIGKILL)
        _wait(lambda: _pid() is None, 300, "the cloud to end")
    _no_cloud()


def start(service: str) -> None:
    order("start", service)


def stop(service: str) -> None:
    order("stop", service)


def status() -> int:
    states = order("status")
    for name, running in states.items():
        sys.stdout.write(f"{name:28}{'running' if running else 'stopped'}\n")
    return 0 if all(states.values()) else 3


def inside(*words: str) -> int:
    """Run a command on the cloud's host."""
    pid = _pid()
    if pid is None:
        raise Failed("the cloud is not up: python -m tests.openstack up")
    words = words[1:] if words[:1] == ("--",) else words
    entering = ["nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid",
                "--root", "--", "env", f"--chdir={layer.REPOSITORY}"]  # fmt: skip
    return subprocess.run([*entering, *words], env=_environment() | {"OS_CLOUD": "here"}).returncode


def _populate() -> None:
    from tests.openstack import prepare

    prepare.wait_until_all_up()
    prepare.populate()


def _pid() -> int | None:
    """The number, out here, of the first process in there."""
    try:
        pid = int((RUN / "pid").read_text())
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ValueError):
        return None
    return pid if b"tests.openstack\0_host" in line else None


def _no_cloud() -> None:
    if _pid() is not None:
        raise Failed("the cloud runs: python -m tests.openstack down")
    shutil.rmtree(RUN, ignore_errors=True)


def _apart() -> list[str]:
    return ["unshare", *_NAMESPACES, "--fork", "--kill-child"]


def _module() -> list[str]:
    return [sys.executable, "-m", "tests.openstack"]


def _python(before: list[str], *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*before, *_module(), *words], cwd=layer.REPOSITORY, env=_environment())


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ENVIRONMENT": "test",
        "SENTINELLA_OPENSTACK_DIR": str(STATE),
    } | ({"TERM": os.environ["TERM"]} if "TERM" in os.environ else {})


def _wait(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            log = RUN / "host.log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise Failed(f"waited {seconds} s in vain for {what}\n{said}")
        time.sleep(0.2)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
