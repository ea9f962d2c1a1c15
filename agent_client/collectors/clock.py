"""The clock: is it kept by somebody, and how far off may it be."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time

from agent_client.collector import Collector, Points

_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000
_TIME_ERROR = 5
#: Seconds between two questions to chronyd, which is a process each.
_CHRONY_EVERY = 60.0
_CHRONY_SOCKETS = ("/run/chrony/chronyd.sock", "/var/run/chrony/chronyd.sock")


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_sec", ctypes.c_long),
        ("time_usec", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_char * 128),
    )


class Clock(Collector):
    """Whether chronyd, ntpd or timesyncd keeps the clock, and by how many seconds it is off.

    The kernel is asked (adjtimex, which needs no right); `offset_seconds` is what it still has to
    correct, `error_seconds` the estimated and `bound_seconds` the largest possible error. Where
    chronyd answers, offset and error are chronyd's, which are finer.
    """

    name = "clock"

    def __init__(self, config: object) -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._chrony: dict[str, float] = {}
        self._chrony_at = -_CHRONY_EVERY

    def collect(self, points: Points) -> None:
        timex = _Timex()
        state = self._libc.adjtimex(ctypes.byref(timex))
        if state < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        unit = 1e9 if timex.status & _STA_NANO else 1e6
        kept = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
        fields: dict[str, float | None] = {
            "synchronised": kept,
            "offset_seconds": timex.offset / unit if kept else None,
            "error_seconds": timex.esterror / 1e6 if kept else None,
            "bound_seconds": timex.maxerror / 1e6 if kept else None,
        }
        fields.update(self._by_chrony())
        points.add("clock", fields)

    def _by_chrony(self) -> dict[str, float]:
        now = time.monotonic()
        if now - self._chrony_at < _CHRONY_EVERY:
            return self._chrony
        self._chrony_at, self._chrony = now, {}
        program = shutil.which("chronyc", path="/usr/bin:/usr/sbin:/bin:/sbin")
        if program is None or not any(map(os.path.exists, _CHRONY_SOCKETS)):
            return {}
        try:
            said = subprocess.run(  # noqa: S603 - no shell, and all of it is ours
                [program, "-n", "-c", "tracking"], capture_output=True, text=True, timeout=3
            )
        except subprocess.TimeoutExpired:
            return {}
        if said.returncode == 0:
            self._chrony = tracked(said.stdout)
        return self._chrony


def tracked(line: str) -> dict[str, float]:
    """What one line of `chronyc -c tracking` says; {} while chronyd has no source.

    Its fields: reference, address, stratum, reference time, system time offset, last offset, RMS
    offset, frequency, residual frequency, skew, root delay, root dispersion, interval, leap status.
    """
    words = line.strip().split(",")
    if len(words) < 14 or words[13] == "Not synchronised":
        return {}
    delay, dispersion = float(words[10]), float(words[11])
    return {
        "offset_seconds": float(words[4]),
        "error_seconds": float(words[6]),
        "bound_seconds": delay / 2 + dispersion,
        "stratum": float(words[2]),
    }
