"""What a plugin's process may not do, and what of that this host can enforce.

Called in the plugin's own process before any of the plugin's code. Constants and structures are
those of Linux: prctl(2), capset(2), unshare(2), landlock(7).
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import grp
import os
import platform
import pwd
import resource
import signal
import sys
from typing import Callable, Sequence

from agent_client.plugins import ending, seccomp
from agent_client.plugins.limits import FALLBACK, Limits, user_of

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
#: The same numbers on every architecture: they are newer than the common table.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_VERSION_FLAG, _RULE_PATH = 1, 1
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91, "ppc64le": 184, "s390x": 185, "riscv64": 91}

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV, _REFER = 1 << 14, 1 << 15, 1 << 13
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
#: Rights that each version of Landlock knows.
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BIND_CONNECT = 3
_SCOPE_SOCKETS_SIGNALS = 3

#: What any Python program reads; nothing below /etc that holds secrets, no home, no logs.
READABLE = (
    "/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/opt", "/proc", "/sys",
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime", "/etc/timezone",
    "/etc/ssl/certs", "/etc/ca-certificates", "/etc/pki", "/etc/passwd", "/etc/group",
    "/etc/ld.so.cache", "/etc/host.conf", "/etc/services", "/etc/protocols", "/etc/os-release",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip
_WRITABLE = ("/dev/null",)


class Refused(Exception):
    """The plugin does not run at all; the text says why, and what to do."""


@dataclasses.dataclass
class Enforced:
    """What holds for this process, and what could not be enforced, with the reason."""

    holds: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)

    def attempt(self, name: str, act: Callable[[], str]) -> None:
        """Note under `name` what `act` says it did, or why it could not."""
        try:
            self.holds.append(f"{name}: {act()}")
        except (OSError, ValueError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.missing.append(f"{name}: {reason}")


def confine(limits: Limits, readable: Sequence[str]) -> Enforced:
    """Give up, for good, what this plugin is not to have. Says what holds and what does not.

    Raises Refused where it would be root and the configuration does not say so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    done = Enforced()
    agents = os.geteuid()
    deny_net = not limits.network
    if deny_net:
        done.attempt("network", lambda: _leave_network(libc))
        deny_net = not done.holds
    done.attempt("resources", lambda: _limit_resources(limits))
    done.attempt("user", lambda: _become(limits, done))
    if os.geteuid() == 0 and not _may_be_root(limits):
        raise Refused(
            "is not run: it would be root. Make its user (useradd --system sentinella-plugin) and"
            ' leave the agent CAP_SETUID and CAP_SETGID, or say user = "root" below [plugin_limits]'
        )
    if not os.access(os.__file__, os.R_OK):
        raise Refused(
            f"is not run: its user {_own_name()} cannot read Python in {sys.prefix}. Install the"
            " agent where everybody may read, or name another user below [plugin_limits]"
        )
    shared = agents == os.geteuid() or _own_name() == FALLBACK
    done.attempt("processes", lambda: _limit_processes(limits, shared))
    done.attempt("capabilities", lambda: _drop_capabilities(libc))
    _call(libc, libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _call(libc, libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    done.attempt("files", lambda: _landlock(libc, limits, readable, deny_net, done))
    if deny_net:
        done.attempt("network", lambda: seccomp.no_internet(libc))
        if any(one.startswith("network: no") for one in done.holds):
            done.missing = [one for one in done.missing if not one.startswith("network: ")]
    return done


def _call(libc: ctypes.CDLL, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _leave_network(libc: ctypes.CDLL) -> str:
    """A network of its own with nothing in it. Needs CAP_SYS_ADMIN."""
    if libc.unshare(_CLONE_NEWNET) == 0:
        return "none (a namespace of its own)"
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _limit_resources(limits: Limits) -> str:
    wanted = {
        resource.RLIMIT_AS: limits.memory,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in wanted.items():
        _limit(what, value)
    os.nice(5)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # where memory ends, a plugin goes before the agent
    return f"memory {limits.memory // 1024**2} MiB, {limits.files} files"


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (most, most))


def _limit_processes(limits: Limits, shared: bool) -> str:
    """The kernel counts all tasks of a user. Where those are others', too, what runs is free."""
    if os.geteuid() == 0:
        raise ValueError("the kernel does not limit root's")
    others = _tasks_of(os.geteuid()) if shared else 0
    _limit(resource.RLIMIT_NPROC, limits.processes + others)
    return f"{limits.processes} of that user"


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _tasks_of(user: int) -> int:
    """How many threads run as this user."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                said = dict(line.split(":", 1) for line in file if ":" in line)
            if int(said["Uid"].split()[0]) == user:
                count += int(said["Threads"])
        except (OSError, KeyError):  # gone meanwhile
            continue
    return count


def _become(limits: Limits, done: Enforced) -> str:
    """The plugins' user, or nobody. Raises where this process may not change its user."""
    user, lacks = user_of(limits)
    if user is None:
        raise ValueError(f"{lacks}; it runs as the agent's user")
    groups = [user.pw_gid]
    for name in limits.groups:
        try:
            groups.append(grp.getgrnam(name).gr_gid)
        except KeyError:
            done.missing.append(f"user: there is no group {name}")
    try:
        _set_groups(groups, done)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except PermissionError:
        if os.geteuid() == user.pw_uid and not lacks:
            return user.pw_name
        why = lacks or "to change it needs CAP_SETUID and CAP_SETGID"
        raise ValueError(f"{why}; it runs as the agent's user") from None
    if lacks:
        done.missing.append(f"user: {lacks}; it runs as {user.pw_name}")
    return user.pw_name


def _may_be_root(limits: Limits) -> bool:
    user, _ = user_of(limits)
    return user is not None and user.pw_uid == 0


def _set_groups(groups: list[int], done: Enforced) -> None:
    """The user's groups, and one by which all that this process starts is found again."""
    try:
        os.setgroups([*groups, ending.group_of(os.getpid())])
    except OSError as error:
        done.missing.append("processes: one that leaves its session may outlive the plugin")
        if error.errno != errno.EINVAL:  # a namespace of users without that number
            raise
        os.setgroups(groups)


def _drop_capabilities(libc: ctypes.CDLL) -> str:
    """All of them: between two users that are not root, changing the user keeps them."""
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    number = _SYS_CAPSET.get(platform.machine())
    if number is None:
        raise ValueError(f"not known how on {platform.machine()}")
    _call(libc, libc.syscall(number, ctypes.byref(header), ctypes.byref(data)))
    return "none"


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def landlock_version() -> int:
    """The version that this kernel has; 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_LANDLOCK_CREATE, None, 0, _VERSION_FLAG)))


def _landlock(
    libc: ctypes.CDLL, limits: Limits, readable: Sequence[str], deny_net: bool, done: Enforced
) -> str:
    version = landlock_version()
    if not version:
        raise ValueError("this kernel has no Landlock")
    known = _KNOWN[min(version, 5)]
    rules = _Ruleset(known, 0, 0)
    size = 8
    if version >= 4:
        size, rules.net = 16, _NET_BIND_CONNECT if deny_net else 0
    if version >= 6:
        size, rules.scoped = 24, _SCOPE_SOCKETS_SIGNALS
    descriptor = _call(
        libc, libc.syscall(_LANDLOCK_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    )
    try:
        for path in (*READABLE, *readable, *limits.read):
            _allow(libc, descriptor, path, _READ & known)
        for path in (*_WRITABLE, *limits.write):
            _allow(libc, descriptor, path, known & ~_EXECUTE)
        _call(libc, libc.syscall(_LANDLOCK_RESTRICT, descriptor, 0))
    finally:
        os.close(descriptor)
    if rules.net:
        done.holds.append("network: no TCP (Landlock)")
    return f"only what is named may be read (Landlock {version})"


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there, nobody reads
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = _PathRule(rights, parent)
        _call(libc, libc.syscall(_LANDLOCK_ADD, ruleset, _RULE_PATH, ctypes.byref(rule), 0))
    finally:
        os.close(parent)


def interpreter_paths() -> list[str]:
    """Where this Python itself lies."""
    found = {
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
    }
    found.update(path for path in sys.path if os.path.isabs(path))
    return sorted(found - {os.sep})
