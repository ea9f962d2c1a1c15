"""Asks libvirt for the guests of this host: one run of `virsh`, read-only and with a deadline.

`virsh list` knows the ids and `virsh domstats` the numbers, so both go over one connection. What is
asked for is what libvirt can say at once (`--nowait`): nothing waits for a guest that is busy.
Numbers of states and reasons are libvirt's own (virDomainState, virDomainPausedReason, …).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from typing import Callable, Mapping, Sequence

from agent_client.logfiles import user_name

log = logging.getLogger("sentinella.libvirt")

#: Seconds that one answer may take, and between two questions; after failures up to the last.
DEADLINE = 10.0
EVERY = 30.0
_AT_MOST_EVERY = 600.0
#: Bytes of an answer; a thousand guests with four disks and ports each stay below.
_MOST = 4 * 1024 * 1024

_URI = "qemu:///system"
_SOCKETS = ("/run/libvirt/libvirt-sock-ro", "/run/libvirt/virtqemud-sock-ro")
_TRY = f"try virsh -r -c {_URI} list --all"
_LIST = "list --all --uuid --name"
#: Not `--vcpu`: dozens of lines for each processor, and a question to each guest.
_STATS = "domstats --raw {} --state --cpu-total --balloon --interface --block"
#: libvirt 4.5 and newer.
_NOWAIT = "--nowait"
_IDENTITY = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s+(\S.*?)\s*$")
_NAMED = re.compile(r"Domain: '(.*)'$")
_BY_DEVICE = re.compile(r"(?:block|net)\.\d+\.((?:rd|wr|rx|tx)\.bytes)$")

RUNNING, PAUSED, OFF, CRASHED = 1, 3, 5, 6
#: libvirt's states as what counts to an operator; a blocked one is idle, others are asleep.
_KINDS = {1: RUNNING, 2: RUNNING, 3: PAUSED, 4: RUNNING, 5: OFF, 6: CRASHED, 7: PAUSED}
#: (state, reason) in which no guest is because somebody wanted it: what it is then, and the words.
_TROUBLES = {
    (3, 5): (PAUSED, "is paused: reading or writing one of its disks failed"),
    (3, 6): (PAUSED, "is paused by its watchdog: the guest hangs"),
    (3, 10): (CRASHED, "crashed, and is kept paused"),
    (3, 13): (PAUSED, "is paused: its migration failed half-way"),
    (3, 14): (PAUSED, "is paused: an operation of libvirt's on it failed"),
    (5, 3): (CRASHED, "crashed: its process ended by itself"),
    (5, 6): (CRASHED, "failed to start"),
    (5, 8): (CRASHED, "was ended by libvirt, which could not take it up again after its restart"),
    (6, 0): (CRASHED, "crashed"),
    (6, 1): (CRASHED, "crashed: its kernel panicked"),
}


class Unreachable(Exception):
    """libvirt gave no answer: what is wrong, and how to mend it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}: {mend}")
        self.what = what
        self.mend = mend


@dataclasses.dataclass(frozen=True)
class Domain:
    """One guest as libvirt knows it. Amounts in bytes and seconds; None is what it did not say.

    `memory` is what its process holds, `memory_limit` what it may have. Bytes are totals over all
    its disks and ports since it was started, as the guest sees them.
    """

    name: str
    uuid: str
    state: int
    reason: int = 0
    cpu_seconds: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None

    @property
    def kind(self) -> int:
        """RUNNING, PAUSED, OFF or CRASHED; 0 for a state that libvirt itself does not know."""
        return _TROUBLES.get((self.state, self.reason), (_KINDS.get(self.state, 0), ""))[0]

    @property
    def trouble(self) -> str:
        """What befell it, where it does not run though nobody wanted that; else nothing."""
        return _TROUBLES.get((self.state, self.reason), (0, ""))[1]


def is_there() -> bool:
    """Whether there is a libvirt to ask, and what to ask it with."""
    return has_socket() and shutil.which("virsh") is not None


def has_socket() -> bool:
    """Whether this host's libvirt listens, or systemd for it."""
    return any(os.path.exists(path) for path in _SOCKETS)


def ask(seconds: float = DEADLINE, uri: str = _URI) -> list[Domain]:
    """Every guest there is, running or not. Raises Unreachable, after `seconds` at the latest."""
    until = time.monotonic() + seconds
    try:
        said = _virsh(uri, f"{_LIST}; {_STATS.format(_NOWAIT)}", seconds)
    except Unreachable as error:
        if _NOWAIT not in str(error):
            raise
        said = _virsh(uri, f"{_LIST}; {_STATS.format('')}", max(0.1, until - time.monotonic()))
    return domains_of(said)


def domains_of(said: str) -> list[Domain]:
    """The guests of what `virsh` prints: first the ids with their names, then the numbers."""
    ids: dict[str, str] = {}
    stats: dict[str, dict[str, int]] = {}
    numbers: dict[str, int] | None = None
    for line in said.splitlines():
        if not line.startswith("  "):
            named, identity = _NAMED.match(line), _IDENTITY.match(line)
            if named:
                numbers = stats.setdefault(named.group(1), {})
            elif identity and numbers is None:
                ids[identity.group(2)] = identity.group(1)
        elif numbers is not None:
            name, _, value = line.strip().partition("=")
            by_device = _BY_DEVICE.match(name)
            if by_device and value.isdigit():
                total = by_device.group(1)
                numbers[total] = numbers.get(total, 0) + int(value)
            elif value.isdigit():
                numbers[name] = int(value)
    return [_domain(name, ids.get(name, ""), found) for name, found in stats.items()]


def _domain(name: str, uuid: str, numbers: Mapping[str, int]) -> Domain:
    def kibibytes(field: str) -> int | None:
        return numbers[field] * 1024 if field in numbers else None

    spent = numbers.get("cpu.time")
    return Domain(
        name=name,
        uuid=uuid,
        state=numbers.get("state.state", 0),
        reason=numbers.get("state.reason", 0),
        cpu_seconds=None if spent is None else spent / 1e9,
        memory=kibibytes("balloon.rss"),
        memory_limit=kibibytes("balloon.maximum"),
        read_bytes=numbers.get("rd.bytes"),
        written_bytes=numbers.get("wr.bytes"),
        received_bytes=numbers.get("rx.bytes"),
        sent_bytes=numbers.get("tx.bytes"),
    )


def _virsh(uri: str, commands: str, seconds: float) -> str:
    """What virsh prints. Its whole process group ends at the deadline. Raises Unreachable."""
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, and all of it is ours
            ["virsh", "--readonly", "--connect", uri, commands],  # noqa: S607 - wherever it is
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(f"virsh cannot be started: {error.strerror}", _TRY) from None
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    late = threading.Event()

    def end() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    try:
        timer.start()
        with process.stdout, process.stderr:
            said = process.stdout.read(_MOST + 1)
            complaint = process.stderr.read(4096) if len(said) <= _MOST else b""
            if len(said) > _MOST:
                _end(process)
        process.wait()
    except BaseException:
        _end(process)
        process.wait()
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise Unreachable(
            f"libvirt gave no answer in {seconds:g} s",
            "see systemctl status libvirtd virtqemud, and restart what hangs; guests run on",
        )
    if len(said) > _MOST:
        raise Unreachable(f"libvirt says more than {_MOST // 1024**2} MiB of its guests", _TRY)
    if process.returncode:
        raise _explained(complaint.decode("utf-8", "replace"))
    return said.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process with its children; it was not waited for yet, so the number is still its."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _explained(complaint: str) -> Unreachable:
    """What virsh complains of, with its mend."""
    lines = [line.partition("error: ")[2] for line in complaint.splitlines() if "error: " in line]
    why = (lines[-1] if lines else complaint.strip() or "virsh failed without a word")[:300]
    low = complaint.lower()
    if "permission denied" in low or "authentication" in low or "access denied" in low:
        user = user_name()
        mend = f"usermod -aG libvirt {user}, then restart the agent"
        return Unreachable(f"libvirt does not let {user} in ({why})", mend)
    if "connection refused" in low or "no such file" in low:
        return Unreachable(f"libvirt does not run ({why})", "systemctl start libvirtd or virtqemud")
    return Unreachable(f"libvirt: {why}", _TRY)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The guests of one look, and when that was (monotonic)."""

    domains: Sequence[Domain]
    at: float


class Watch:
    """libvirt, asked in a thread of its own, for one that hangs may hold nobody up.

    After failures it is asked less and less often, every ten minutes at least.
    """

    def __init__(self, ask: Callable[[], list[Domain]] = ask) -> None:
        self._ask = ask
        self._thread: threading.Thread | None = None
        self._came: Answer | Unreachable | None = None
        self._asked_at = 0.0
        self._due = 0.0
        self._failures = 0
        #: The last answer, however old.
        self.latest: Answer | None = None
        #: Why there is none since; empty where it is well.
        self.problem = ""

    def poll(self, now: float) -> Answer | None:
        """What came since the last call; asks anew when it is time. `now` is monotonic."""
        fresh = None
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            came, self._came = self._came, None
            if isinstance(came, Answer):
                fresh = self.latest = came
                self.problem, self._failures = "", 0
            elif came is not None:
                self.problem, self._failures = str(came), self._failures + 1
            every = min(_AT_MOST_EVERY, EVERY * 2.0 ** min(self._failures, 10))
            self._due = self._asked_at + every
        # A cycle is never quite punctual: the one that is a moment early counts.
        if self._thread is None and now >= self._due - 1.0:
            self._asked_at = now
            self._thread = threading.Thread(target=self._work, name="libvirt", daemon=True)
            self._thread.start()
        return fresh

    def settle(self, seconds: float) -> None:
        """Wait for the answer that is under way."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        at = time.monotonic()
        try:
            self._came = Answer(self._ask(), at)
        except Unreachable as error:
            self._came = error
        except Exception as error:
            log.exception("libvirt")
            self._came = Unreachable(f"libvirt: {type(error).__name__}: {error}", _TRY)
