"""The last resort: ask `nova-manage --version`, at most once a day, and let nobody wait for it."""

from __future__ import annotations

import os
import signal
import subprocess

from agent_client.discovery.host import Host
from agent_client.discovery.release import Version, of_program

PROGRAM = "/usr/bin/nova-manage"
#: Seconds; it takes two of processor time, and more on a host that is busy.
_MAY_TAKE = 30.0
_EVERY = 86_400.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class NovaManage:
    """Asks, and hears the answer in a later cycle."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked_at: float | None = None
        self.process: subprocess.Popen[str] | None = None
        #: What it said last.
        self.said: Version | None = None

    def ask(self, now: float) -> None:
        """Start it if it is due and there; only this host's own, not one at another root."""
        if self.process is not None or self._host.root or not self._host.exists(PROGRAM):
            return
        if self._asked_at is not None and abs(now - self._asked_at) < _EVERY:
            return
        self._asked_at = now
        try:
            self.process = subprocess.Popen(  # noqa: S603 - a fixed path
                [PROGRAM, "--version"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                # A wrapper's own child would hold the pipe open; and nothing of our secrets.
                start_new_session=True, env={"PATH": _PATH, "LC_ALL": "C"},
            )  # fmt: skip
        except OSError as error:
            self._host.blind[PROGRAM] = f"{PROGRAM}: {error.strerror}"

    def hear(self, now: float) -> bool:
        """Take its answer if it has come; True if it tells a version."""
        if self.process is None:
            return False
        if self.process.poll() is None:
            if abs(now - (self._asked_at or now)) > _MAY_TAKE:
                os.killpg(self.process.pid, signal.SIGKILL)
            return False
        output, _ = self.process.communicate()
        self.process = None
        version = of_program(output)
        if version:
            self.said = Version("nova", version, f"{PROGRAM} --version")
        return bool(version)
