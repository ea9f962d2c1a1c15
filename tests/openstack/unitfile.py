"""Starts a service as its Debian systemd unit says: user, folders, command line."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PLACES = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT = Path("/var/log/units")


@dataclass(frozen=True)
class Unit:
    """What is used of a unit file."""

    command: list[str]
    user: str
    runtime: list[str]
    cache: list[str]


def read(name: str) -> Unit:
    """Raises FileNotFoundError where no package brought such a unit."""
    text = next(
        path.read_text() for place in _PLACES if (path := Path(place) / f"{name}.service").exists()
    )
    said: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        key, found, value = line.partition("=")
        if found and not line.startswith("#"):
            said.setdefault(key.strip(), []).append(value.strip())

    def words(key: str) -> list[str]:
        return said.get(key, [""])[-1].split()

    return Unit(
        command=shlex.split(said["ExecStart"][-1]),
        user=said.get("User", ["root"])[-1],
        runtime=words("RuntimeDirectory"),
        cache=words("CacheDirectory"),
    )


def spawn(
    name: str, command: list[str], user: str, *, folders: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start `command` as `user` in a session of its own, with its output in a file."""
    who = pwd.getpwnam(user)
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        os.chown(folder, who.pw_uid, who.pw_gid)
    OUTPUT.mkdir(exist_ok=True)
    groups = [one.gr_gid for one in grp.getgrall() if user in one.gr_mem]
    with (OUTPUT / f"{name}.out").open("ab") as output:
        return subprocess.Popen(
            command,
            user=who.pw_uid,
            group=who.pw_gid,
            extra_groups=groups,
            cwd=who.pw_dir if Path(who.pw_dir).is_dir() else "/",
            env={"PATH": _PATH, "LANG": "C.UTF-8", "HOME": who.pw_dir, "USER": user} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def spawn_unit(name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a service by its unit."""
    unit = read(name)
    project = name.split("-")[0]
    folders = [f"/run/{one}" for one in unit.runtime] + [f"/var/cache/{one}" for one in unit.cache]
    folders += [f"/run/lock/{project}", f"/run/{project}"]
    return spawn(name, unit.command, unit.user, folders=folders, environment=environment)
