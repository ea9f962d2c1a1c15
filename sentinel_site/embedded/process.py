"""Child processes that do not outlive their parent, and how to tell ours from others'."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

LOOPBACK = "127.0.0.1"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class EmbeddedError(Exception):
    """Something here cannot run as asked; the text says what to do about it."""


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: int | IO[bytes] | None,
    errors: int | None = subprocess.STDOUT,
    die_with: signal.Signals = signal.SIGKILL,
    stdin: int | None = subprocess.DEVNULL,
    own_group: bool = True,
    user_namespace: bool = False,
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that gets the signal `die_with` when this process ends, however it ends.

    The kernel ties that signal to the calling *thread*: call from one that lives as long as the
    child shall. With `user_namespace` the program sees itself as an ordinary user, although its
    files belong to us; with `user` it becomes that user.
    """
    parent = os.getpid()

    def prepare() -> None:  # after fork, before exec
        if user_namespace:
            enter_user_namespace()
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(die_with), 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return subprocess.Popen(  # noqa: S603
        [str(part) for part in argv],
        env=dict(env),
        cwd=cwd,
        stdin=stdin,
        stdout=output,
        stderr=None if output is None else errors,
        process_group=0 if own_group else None,
        preexec_fn=prepare,
        user=user,
        extra_groups=[] if user else None,
    )


def enter_user_namespace() -> None:
    """Be user 1000 of a namespace in which nobody else exists; to others nothing changes."""
    if _libc is None:
        raise OSError(errno.ENOSYS, "user namespaces need Linux")
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"1000 {uid} 1"),
        ("gid_map", f"1000 {gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def adopt_orphans() -> None:
    """Become the parent of our children's children when those die, so that none gets away."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_orphans() -> None:
    """Collect adopted children that have ended. Ask one's own for their status before."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def kill_children() -> None:
    """Leave no child behind, adopted ones included."""
    me = os.getpid()
    while children := [pid for pid in processes() if parent_of(pid) == me]:
        for pid in children:
            os.kill(pid, signal.SIGKILL)  # ours until waited for, so the id means no one else
        for pid in children:
            os.waitpid(pid, 0)


def start_time(pid: int) -> str | None:
    """When a process began, in ticks since boot; None if it is gone. With the pid it is unique."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def parent_of(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on (number 3 in proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def works_in(pid: int, directory: Path) -> bool:
    """Whether a process has this working directory, as every PostgreSQL has its data's."""
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", directory)
    except OSError:
        return False


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group a child leads; one that is gone already is fine."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float, what: str
) -> None:
    """Look until it is ready. Raises EmbeddedError if the process ends or the time is up."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not ready():
        if process.poll() is not None:
            raise EmbeddedError(f"{what} ended with status {process.returncode}.")
        if time.monotonic() > deadline:
            raise EmbeddedError(f"{what} was not ready within {seconds:.0f} s.")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def remembered(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Random secrets, made once and kept in a file that only its owner can read."""
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in kept]
    if missing:
        kept.update({name: secrets.token_urlsafe(48) for name in missing})
        write_private(path, json.dumps(kept, indent=2))
    return kept


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; at no moment can others read it, nor anybody half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
