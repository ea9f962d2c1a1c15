"""When a job is expected to check in: every so often, or by a cron expression. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from clouds.recurrences import is_zone


class NotASchedule(ValueError):
    """What is wrong with it, in words; `field` is where."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True)
class Schedule:
    """Every `period`, or by `cron` in the clocks of `zone`; `grace` is what it may be late."""

    period: timedelta | None
    cron: str
    zone: str
    grace: timedelta

    def check(self) -> None:
        """Raises NotASchedule."""
        if (self.period is None) == (not self.cron):
            raise NotASchedule("period", "Give a period or a cron expression, one of the two.")
        if self.period is not None and not timedelta(minutes=1) <= self.period <= timedelta(366):
            raise NotASchedule("period", "Between one minute and a year.")
        if not timedelta(minutes=1) <= self.grace <= timedelta(31):
            raise NotASchedule("grace", "Between one minute and 31 days.")
        if not is_zone(self.zone):
            raise NotASchedule("zone", "A time zone is named as Europe/Berlin.")
        if self.cron:
            try:
                self.due_after(datetime(2026, 1, 1, tzinfo=UTC))
            except (CronSimError, StopIteration):
                text = "Five fields as in crontab(5): 30 2 * * 1-5. It must come at some time."
                raise NotASchedule("cron", text) from None

    def due_after(self, at: datetime) -> datetime:
        """When it is expected next, having checked in at `at`."""
        if self.period is not None:
            return at + self.period
        local = at.astimezone(ZoneInfo(self.zone))
        return next(CronSim(self.cron, local)).astimezone(UTC)

    def after_outage(self, due: datetime, began: datetime) -> datetime:
        """When it is expected next, if nobody could hear it when it was due.

        A job that ran then comes again when its schedule says so, counted from when we listen.
        """
        return max(due, self.due_after(began))
