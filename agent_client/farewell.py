"""Why the agent stops, for its last report.

Whoever stops it on purpose may leave the reason in `<state_dir>/stop-reason` (as a package may
before an update); otherwise it is the signal, or that the host itself goes down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from agent_client.wire import MAX_GOODBYE

_REASON = "stop-reason"
#: A reason that is older was meant for another stop, in seconds.
_GOOD_FOR = 120.0


def leave_reason(state_dir: str, reason: str) -> None:
    """Say why the agent that works there is about to be stopped. Raises OSError."""
    with open(os.path.join(state_dir, _REASON), "w", encoding="utf-8") as file:
        file.write(reason)


def reason_for(state_dir: str, number: int | None) -> str:
    """The reason, in a few words; it is good for one stop."""
    path = os.path.join(state_dir, _REASON)
    with contextlib.suppress(OSError, UnicodeDecodeError):  # none was left
        with open(path, encoding="utf-8") as file:
            said = file.read(MAX_GOODBYE).strip()
            left_at = os.fstat(file.fileno()).st_mtime
        os.unlink(path)
        if said and time.time() - left_at < _GOOD_FOR:
            return said
    if _host_goes_down():
        return "the host shuts down"
    return signal.Signals(number).name if number is not None else "it ended by itself"


def _host_goes_down() -> bool:
    """Whether systemd is stopping everything."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # it cannot say: no, then
        done = subprocess.run(
            ["systemctl", "is-system-running"],  # noqa: S607 - wherever the system has it
            capture_output=True, text=True, timeout=0.3, check=False,
        )  # fmt: skip
        return done.stdout.strip() == "stopping"
    return False
