"""How far this host's clock is off the server's, and what is done about it.

Every answer says what the server's clock was when it was given. Between sending and receiving lies
the true moment, so the middle of the two is wrong by at most half the time that it took; of the
last answers the quickest counts.

An offset of more than TELL_FROM seconds is told, as an event, when it comes and when it goes. One
of more than CORRECT_FROM that stays the same over STEADY_ANSWERS answers is also corrected: what is
measured from then on, and the times of log lines, are reported in the server's time, so that a host
whose clock is an hour off is not an hour behind on the page. One of more than CORRECT_UP_TO is only
told: it may as well be the server's clock that is wrong, and wrong times cannot be taken back.
It is corrected in steps and rarely, not by drifting along, and what waits in the spool already is
left as it is. When the clock itself is set, the correction ends at once.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from typing import Callable

#: Seconds from which an offset is told, and corrected; a clock that NTP holds is off by far less.
TELL_FROM = 2.0
CORRECT_FROM = 10.0
#: A wrong time zone is off by up to 14 h; what is off by more is no matter of a clock that drifts.
CORRECT_UP_TO = 86_400.0
#: So many answers must agree, to so many seconds.
STEADY_ANSWERS = 5
_STEADY_WITHIN = 1.0
#: An answer that took longer says too little.
_SLOWEST = 5.0
#: The clock was set, where it moved so much more than the time that passed, in seconds.
_CLOCK_WAS_SET = 0.5


@dataclasses.dataclass(frozen=True)
class Sample:
    """One answer: the server's clock less ours, and how long the exchange took, in seconds."""

    offset: float
    took: float


class Skew:
    """The clock's offset as the answers show it. Safe to use from several threads."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._steady = steady
        self._samples: deque[Sample] = deque(maxlen=STEADY_ANSWERS)
        self._difference = clock() - steady()
        self._lock = threading.Lock()
        #: Which of what is wrong was told last: "", "off" or "far".
        self._told = ""
        #: Seconds that are added to what is reported.
        self.correction = 0.0

    def note(self, sent_at: float, received_at: float, server_time: float) -> None:
        """Take one answer; all three in Unix seconds, the first two by our clock."""
        took = received_at - sent_at
        if not 0 <= took <= _SLOWEST:
            return
        with self._lock:
            self._look_for_a_set_clock()
            self._samples.append(Sample(server_time - (sent_at + received_at) / 2, took))
            offsets = [sample.offset for sample in self._samples]
            if len(offsets) < STEADY_ANSWERS or max(offsets) - min(offsets) > _STEADY_WITHIN:
                return
            best = self._best()
            if not CORRECT_FROM <= abs(best) <= CORRECT_UP_TO:
                self.correction = 0.0
            elif abs(best - self.correction) > _STEADY_WITHIN:
                self.correction = round(best, 3)

    @property
    def offset(self) -> float | None:
        """The server's clock less ours, in seconds; None while nothing is known."""
        with self._lock:
            return round(self._best(), 4) if self._samples else None

    @property
    def round_trip(self) -> float | None:
        """How long the quickest of the last exchanges took, in seconds."""
        with self._lock:
            return min(sample.took for sample in self._samples) if self._samples else None

    def news(self) -> str:
        """What is to be told, once: that the clock is off, or right again; else empty."""
        with self._lock:
            if len(self._samples) < STEADY_ANSWERS:
                return ""
            off = all(abs(sample.offset) - sample.took / 2 > TELL_FROM for sample in self._samples)
            right = all(abs(sample.offset) < TELL_FROM for sample in self._samples)
            best = self._best()
            kind = "far" if abs(best) > CORRECT_UP_TO else "off"
            if off and kind != self._told:
                self._told = kind
                where = "behind" if best > 0 else "ahead of"
                if kind == "far":
                    return (
                        f"this host's clock is {abs(best) / 86_400:.1f} days {where} the server's: "
                        "one of the two is wrong. More than a day is not corrected, times are "
                        "reported as they are: look at both (timedatectl)."
                    )
                return (
                    f"this host's clock is {abs(best):.1f} s {where} the server's: is NTP at work? "
                    + (
                        "What is reported from now on is corrected by as much."
                        if self.correction
                        else "Times are reported as they are."
                    )
                )
            if right and self._told:
                self._told = ""
                return "this host's clock agrees with the server's again"
        return ""

    def _best(self) -> float:
        return min(self._samples, key=lambda sample: sample.took).offset

    def _look_for_a_set_clock(self) -> None:
        difference = self.clock() - self._steady()
        if abs(difference - self._difference) > _CLOCK_WAS_SET:
            # What was measured against the old time says nothing of the new one.
            self._samples.clear()
            self.correction = 0.0
        self._difference = difference
