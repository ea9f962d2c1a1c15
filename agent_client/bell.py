"""Wakes the loop from a signal handler or from another thread.

A handler runs between two instructions of the main thread, which may hold any lock just then; so
it only sets a flag and writes a byte, which takes none.
"""

from __future__ import annotations

import contextlib
import os
import select


def is_ready(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read within so long.

    By poll(2): select(2) knows no descriptor above 1023, and many logs may be open.
    """
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(max(0.0, seconds) * 1000))


class Bell:
    """Waited for by one thread, rung by any, and by signal handlers."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._reload = False

    def ring(self) -> None:
        """End the wait under way, or the next one."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it rings already; or closed
            os.write(self._writing, b"x")

    def ring_for_reload(self, number: int, frame: object) -> None:
        """What SIGHUP does."""
        self._reload = True
        self.ring()

    def reload_wanted(self) -> bool:
        """Whether SIGHUP came since this was last asked."""
        wanted, self._reload = self._reload, False
        return wanted

    def wait(self, seconds: float) -> None:
        """Wait until it rings, at most so long."""
        if is_ready(self._reading, seconds):
            with contextlib.suppress(BlockingIOError):  # emptied
                while os.read(self._reading, 512):
                    continue

    def close(self) -> None:
        """Let go of the pipe; ringing is without effect from then on."""
        reading, self._reading = self._reading, -1
        writing, self._writing = self._writing, -1
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
