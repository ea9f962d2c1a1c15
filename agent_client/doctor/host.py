"""Looks at this host: configuration, files, disk, the running agent, its spool, the time zone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import grp
import json
import os
import sqlite3
import stat
import time
from typing import Any, Iterator, Mapping

from agent_client import libvirt, plugin_modules
from agent_client.config import Config
from agent_client.doctor.findings import Finding, User, fine, problem, warning

_ENOUGH_FREE = 16 * 1024**2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE_BYTES = 64 * 1024
#: Seconds that libvirt may take.
_ANSWER_WITHIN = 5.0


def configured(config: Config) -> Iterator[Finding]:
    where = config.path or "no file"
    if not config.server:
        yield problem(
            "configuration",
            f"{where}: no server is named",
            "sentinella enrol --server URL --token TOKEN, or `server` below [agent]",
        )
    if not config.key:
        yield problem(
            "configuration",
            f"{where}: there is no key",
            "take a token from Servers, New server and run `sentinella enrol`",
        )
    for said in config.warnings:
        what, _, mend = said.rpartition(": ")
        if mend.startswith("chmod"):
            yield problem("secrets", what, mend)
        else:
            yield warning("configuration", said, "correct the file, or take it away")
    if config.hostname in ("localhost", "localhost.localdomain"):
        yield problem(
            "host name",
            f"this host calls itself {config.hostname}, as any may",
            "hostnamectl set-hostname NAME, or `host` below [agent]",
        )
    if config.ca_file and not os.path.isfile(config.ca_file):
        yield problem(
            "ca_file",
            f"{config.ca_file} is not there",
            "put the authority's certificate there, in PEM form",
        )
    if config.openstack.clouds_file and not os.path.isfile(config.openstack.clouds_file):
        yield problem(
            "openstack",
            f"{config.openstack.clouds_file} is not there",
            "put the clouds.yaml there, or set clouds_file",
        )
    if config.server and config.key and not config.warnings:
        yield fine("configuration", where)


def files(config: Config, user: User) -> Iterator[Finding]:
    """What the agent's user must be able to read and write."""
    if config.path:
        try:
            with open(config.path, "rb"):
                pass
        except OSError as error:
            yield problem(
                "configuration",
                f"{config.path} cannot be read by {user.name}: {error.strerror}",
                f"chown root:{user.name} {config.path} && chmod 640 {config.path}",
            )
    yield _writable_state(config, user)
    if config.log_file:
        yield _writable_log(config.log_file, user)


def _writable_state(config: Config, user: User) -> Finding:
    directory = config.state_dir
    make = f"install -d -m 750 -o {user.name} {directory}"
    if not os.path.exists(directory):
        return warning("state directory", f"{directory} is not there yet", make)
    if not os.path.isdir(directory):
        return problem("state directory", f"{directory} is no directory", f"move it away; {make}")
    probe = os.path.join(directory, f".doctor-{os.getpid()}")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            left = _PROBE_BYTES
            while left:
                left -= os.write(descriptor, bytes(left))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            os.unlink(probe)
    except OSError as error:
        return _unwritable("state directory", directory, error, user)
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    wanted = max(_ENOUGH_FREE, config.spool_max_bytes - _size(config))
    if free < wanted:
        return warning(
            "disk",
            f"{directory} has {_mebibytes(free)} free, the spool may want {_mebibytes(wanted)}",
            "free space there, set a smaller [spool] max_size, or another state_dir",
        )
    return fine("state directory", f"{directory}, {_mebibytes(free)} free")


def _writable_log(path: str, user: User) -> Finding:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
    except OSError as error:
        return _unwritable("log_file", path, error, user)
    return fine("log_file", path)


def _unwritable(name: str, path: str, error: OSError, user: User) -> Finding:
    if error.errno in _FULL:
        return problem(
            "disk",
            f"nothing can be written to {path}: {error.strerror}",
            "free space or inodes there, or set another place; what the spool holds is safe",
        )
    if error.errno == errno.EROFS:
        return problem(
            name,
            f"{path} is mounted read-only",
            "mount it writable (a failing disk is remounted so: see dmesg)",
        )
    return problem(
        name,
        f"{path} cannot be written by {user.name}: {error.strerror}",
        f"chown -R {user.name} {path}",
    )


def logs(config: Config, user: User) -> Iterator[Finding]:
    """Whether the files to follow may be read."""
    unreadable, readable = [], 0
    for source in config.logs:
        if getattr(source, "kind", "file") != "file":
            continue
        paths = glob.glob(source.pattern, recursive=True)
        if not paths:
            yield from _no_file(source.pattern, user)
        for path in paths:
            if not stat.S_ISREG(_mode(path)):
                continue  # a directory, or a pipe that would wait for a writer
            try:
                with open(path, "rb"):
                    readable += 1
            except OSError as error:
                unreadable.append((path, error.strerror))
    for path, reason in unreadable:
        group = _group_of(path)
        yield problem(
            "logs",
            f"{path} cannot be read by {user.name}: {reason}",
            f"usermod -aG {group} {user.name}" if group else f"setfacl -m u:{user.name}:r {path}",
        )
    if config.logs and not unreadable:
        yield fine("logs", f"{readable} files can be read")


def guests(config: Config) -> Iterator[Finding]:
    """Whether the agent's user may ask libvirt, where there is one."""
    if not config.collectors.get("guests", True) or not libvirt.has_socket():
        return
    if not libvirt.is_there():
        yield warning(
            "libvirt",
            "virsh is missing: guests that are off or crashed are not seen",
            "apt install libvirt-clients (libvirt-client on Red Hat's)",
        )
        return
    try:
        seen = libvirt.ask(_ANSWER_WITHIN)
    except libvirt.Unreachable as error:
        yield warning("libvirt", error.what, error.mend)
    else:
        yield fine("libvirt", f"{len(seen)} guests")


def _mode(path: str) -> int:
    """What kind of file it is; a regular one where that cannot be seen."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return stat.S_IFREG


def _no_file(pattern: str, user: User) -> Iterator[Finding]:
    directory = os.path.dirname(pattern.split("*")[0].split("?")[0].split("[")[0])
    while not os.path.isdir(directory) and directory not in ("", "/"):
        directory = os.path.dirname(directory)
    if not os.access(directory, os.R_OK | os.X_OK):
        yield problem(
            "logs",
            f"{directory} cannot be looked into by {user.name}",
            f"setfacl -m u:{user.name}:rx {directory}",
        )
    else:
        yield warning(
            "logs",
            f"{pattern} matches no file yet",
            "correct the path, or nothing: it is taken up when it comes",
        )


def _group_of(path: str) -> str:
    """The group that may read the file, if giving it to the agent would help."""
    try:
        status = os.stat(path)
        if status.st_mode & 0o040 and status.st_gid != 0:
            return grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return ""
    return ""


def holder(state_dir: str) -> int | None:
    """The process that holds the state directory, if one does."""
    path = os.path.join(state_dir, "lock")
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(descriptor, 32, 0).split()
        return int(said[0]) if said and said[0].isdigit() else None
    finally:
        os.close(descriptor)
    return None


def agent(config: Config, pid: int | None, now: float) -> Iterator[Finding]:
    said = _status(config)
    if pid is None:
        yield warning(
            "agent",
            "no agent is running on this state directory",
            "systemctl start sentinella, or `sentinella run`",
        )
        return
    other = said.get("config")
    if other and config.path and os.path.realpath(other) != os.path.realpath(config.path):
        yield problem(
            "agent",
            f"another agent (pid {pid}) holds {config.state_dir}, configured by {other}",
            f"stop it (kill {pid}), or give each its own state_dir",
        )
        return
    last = said.get("last_cycle_at")
    if last is not None and now - last > 3 * float(said.get("interval", 60)) + 30:
        yield problem(
            "agent",
            f"pid {pid} runs, but saw nothing for {now - last:.0f} s",
            "restart it: systemctl restart sentinella; its log says what it hangs on",
        )
        return
    yield fine("agent", f"running (pid {pid})")
    for state in said.get("collectors", []):
        if not state.get("ok", True):
            yield warning(
                f"collector {state['name']}",
                state.get("detail", "fails"),
                f"see it with `sentinella check {state['name']}`, or switch it off",
            )


def plugins(config: Config, user: User) -> Iterator[Finding]:
    """Whether each plugin is there and runs, and what of its confinement does not hold."""
    fared = {one.get("name"): one for one in _status(config).get("plugins", [])}
    for module, functions in config.plugins.items():
        if plugin_modules.locate(module, config.plugin_paths) is None:
            yield problem(
                "plugins",
                f"there is no module {module} below {', '.join(config.plugin_paths)}",
                f"put it there, or sentinella disable {module}={','.join(functions)}",
            )
            continue
        unsafe = plugin_modules.unsafe(module, config.plugin_paths, user.uid, user.gid)
        if unsafe:
            said, _, mend = unsafe.rpartition(": ")
            yield problem("plugins", f"{module} is not run: {said}", mend)
            continue
        for function in functions:
            state = fared.get(f"{module}.{function}", {})
            if not state.get("ok", True):
                yield problem(
                    "plugins",
                    f"{module}.{function}: {state.get('detail')}",
                    f"mend it, or sentinella disable {module}={function}",
                )
            for missing in state.get("missing", []):
                yield warning(
                    "plugins",
                    f"{module}.{function} is less confined than it could be: {missing}",
                    "see “Plugins” in docs/agent.md for what the host must allow",
                )


def _status(config: Config) -> dict[str, Any]:
    try:
        with open(os.path.join(config.state_dir, "status.json"), encoding="utf-8") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _size(config: Config) -> int:
    try:
        return os.stat(os.path.join(config.state_dir, "spool.db")).st_size
    except OSError:
        return 0


def spool(config: Config) -> Iterator[Finding]:
    path = os.path.join(config.state_dir, "spool.db")
    if not os.path.exists(path):
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            count, size = db.execute("SELECT count(*), total(size) FROM reports").fetchone()
    except sqlite3.OperationalError as error:
        yield warning(
            "spool",
            f"{path} cannot be looked at: {error}",
            "run doctor as root or as the agent's user",
        )
        return
    except sqlite3.DatabaseError as error:
        yield problem(
            "spool",
            f"{path} is damaged: {error}",
            "restart the agent: it sets the file aside and begins anew; then look after the disk",
        )
        return
    if size > 0.8 * config.spool_max_bytes:
        yield warning(
            "spool",
            f"{count} reports wait, {_mebibytes(size)}: the oldest go soon",
            "see why the server does not take them; meanwhile raise [spool] max_size",
        )
    else:
        yield fine("spool", f"{count} reports wait")
    aside = glob.glob(glob.escape(path) + ".damaged-*")
    if aside:
        yield warning(
            "spool",
            f"a damaged one was set aside: {aside[0]}",
            "look after the disk (smartctl, dmesg), then remove the file",
        )


def time_zone(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Lines of logs bear the host's time without its zone: a wrong zone shifts them all."""
    zone = environ.get("TZ", "").lstrip(":")
    if (
        zone
        and "/" in zone
        and not os.path.exists(
            zone if zone.startswith("/") else os.path.join("/usr/share/zoneinfo", zone)
        )
    ):
        yield problem(
            "time zone",
            f"TZ is {zone}, which is not known here; UTC is taken for it",
            "set TZ to a name of /usr/share/zoneinfo, or install tzdata",
        )
    elif not zone and os.path.islink("/etc/localtime") and not os.path.exists("/etc/localtime"):
        yield problem(
            "time zone",
            "/etc/localtime points at nothing; UTC is taken",
            "timedatectl set-timezone ZONE, or install tzdata",
        )
    else:
        yield fine("time zone", time.strftime("%Z (%z)"))


def _mebibytes(amount: float) -> str:
    return f"{amount / 1024**2:.0f} MiB"
