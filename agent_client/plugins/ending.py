"""Ends a plugin's process with all that it started, wherever that has gone.

A session can be left and a parent can end, but a supplementary group stays: each plugin's process
is given one of its own before the plugin's code runs, and only CAP_SETGID takes it away. Without
the right to give it, what is in the plugin's session or below its process ends, no more.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time
from typing import Collection

#: Between what directories of users give out (to 2 000 200 000) and the end of the numbers.
_FIRST_GROUP = 2_100_000_000
#: How long to go on where what is ended keeps starting more, in seconds.
_LONGEST = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


def group_of(pid: int) -> int:
    """The group in which only this plugin's process is, and what it starts."""
    return _FIRST_GROUP + pid


def end(pid: int, user: pwd.struct_passwd | None) -> bool:
    """Kill the process, its session, and what else it started. False if some of it lives on.

    `user` is whose the processes are, where they are not this process's own.
    """
    killed = stopped = _members(pid)
    _send(signal.SIGKILL, [-pid, *_below(pid), *killed], user)
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        living = _members(pid)
        fresh = living - stopped
        if fresh:  # what is stopped starts nothing: soon nobody new turns up
            _send(signal.SIGSTOP, fresh, user)
            stopped = stopped | fresh
        elif living <= killed:
            return True
        else:
            _send(signal.SIGKILL, living, user)
            killed = living
    return False


def processor_seconds(pid: int) -> float:
    """What the process and all below it have used. Raises OSError when it is gone."""
    used = _used(pid)
    for one in _below(pid):
        with contextlib.suppress(OSError):  # gone meanwhile
            used += _used(one)
    return used


def _used(pid: int) -> float:
    """Its own, and that of its children whose end it has seen."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def _below(pid: int) -> set[int]:
    """Its children, theirs, and so on."""
    found: set[int] = set()
    left = [pid]
    while left:
        new = _children(left.pop()) - found
        found |= new
        left.extend(new)
    return found


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):  # gone meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found.update(int(child) for child in file.read().split())
    return found


def _members(pid: int) -> set[int]:
    """All in the plugin's group that are not dead yet."""
    group = str(group_of(pid)).encode()
    found = set()
    for one in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{one}/status", "rb") as file:
                said = file.read()
        except OSError:
            continue
        if group in said and group in _line(said, b"Groups:") and _line(said, b"State:")[0] != b"Z":
            found.add(int(one))
    return found


def _line(said: bytes, name: bytes) -> list[bytes]:
    for line in said.splitlines():
        if line.startswith(name):
            return line[len(name) :].split()
    return [b""]


def _send(number: int, targets: Collection[int], user: pwd.struct_passwd | None) -> None:
    """Signal processes, and groups by their negative number; those that are gone are gone."""
    refused = _refused(number, targets)
    if not refused or user is None or user.pw_uid == os.geteuid():
        return
    child = os.fork()  # another user's needs a process of that user to do it
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            _refused(number, refused)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _refused(number: int, targets: Collection[int]) -> list[int]:
    """Signal them; those that this process may not signal."""
    refused = []
    for target in targets:
        try:
            os.kill(target, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            refused.append(target)
    return refused
