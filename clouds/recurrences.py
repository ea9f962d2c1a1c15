"""When something that comes again comes: RRULEs (RFC 5545) in the clocks of a time zone. Pure.

A clock time that does not exist, because clocks were put forward over it, is taken by the offset
before that: 02:30 comes an hour after 01:30. One that exists twice is meant the first time. How
long an occurrence lasts is time that passes, whatever clocks do meanwhile (RFC 5545, 3.3.6).
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrule, rrulestr

#: Further ahead nothing is looked for: a 30 February never comes.
HORIZON = timedelta(days=5 * 366)
LONGEST = timedelta(days=31)
#: Begins that are nearer to each other than this are refused.
NEAREST = timedelta(minutes=5)

_FREQUENCIES = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_PARTS = frozenset(
    {
        *("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", "BYMONTH", "BYMONTHDAY"),
        *("BYYEARDAY", "BYWEEKNO", "BYHOUR", "BYSETPOS"),
    }
)
_UNTIL = re.compile(r"(\d{8})(?:T(\d{6})(Z?))?")


class NotARule(ValueError):
    """What is wrong with a rule, in words."""


@lru_cache(maxsize=1024)
def is_zone(name: str) -> bool:
    """Whether there is a time zone of this name."""
    try:
        return name != "" and len(name) <= 64 and ZoneInfo(name) is not None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False


def check(rule: str, zone: str, begins: datetime, lasts: timedelta) -> None:
    """Raises NotARule, and says why."""
    if not is_zone(zone):
        raise NotARule(f"There is no time zone {zone}; it is named as Europe/Berlin.")
    if not timedelta() < lasts <= LONGEST:
        raise NotARule(f"Each must last, and at most {LONGEST.days} days.")
    found = []
    for start in starts(rule, zone, begins):
        found.append(start)
        if len(found) == 100:
            break
    if not found:
        raise NotARule("It never comes.")
    nearest = min((later - start for start, later in pairwise(found)), default=NEAREST)
    if nearest < min(lasts, NEAREST):
        raise NotARule("It would come again before it is over.")


def starts(
    rule: str, zone: str, begins: datetime, after: datetime | None = None
) -> Iterator[datetime]:
    """When its occurrences begin, in order; with `after`, only those that begin later.

    The first is not before `begins`. Raises NotARule.
    """
    place = ZoneInfo(zone)
    begins = begins.replace(microsecond=0)  # rules know whole seconds
    first = begins.astimezone(place).replace(tzinfo=None)
    parsed = _parsed(rule, place, first, max(after or begins, begins))
    last = None
    for local in parsed:
        at = begins if local == first else local.replace(tzinfo=place).astimezone(UTC)
        if (after is None or at > after) and (last is None or at > last):
            yield at
            last = at


def _parsed(rule: str, place: ZoneInfo, first: datetime, from_: datetime) -> Iterator[datetime]:
    text = rule.strip().upper().removeprefix("RRULE:")
    parts: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        name, _, value = part.partition("=")
        if name not in _PARTS or not value:
            allowed = ", ".join(sorted(_PARTS))
            raise NotARule(f"{part[:40]} is not understood; write NAME=value of {allowed}.")
        parts[name] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        raise NotARule(f"It needs FREQ= one of {', '.join(_FREQUENCIES)}.")
    _must_come(parts)
    try:
        horizon = from_.astimezone(place).replace(tzinfo=None) + HORIZON
    except OverflowError:
        raise NotARule("It begins too far ahead.") from None
    if "UNTIL" in parts:
        horizon = min(horizon, _until(parts.pop("UNTIL"), place))
    count = parts.pop("COUNT", None)
    if count is not None and not re.fullmatch(r"[1-9]\d{0,5}", count):
        raise NotARule("COUNT is how often it comes.")
    said = ";".join(f"{name}={value}" for name, value in parts.items())
    try:
        found = rrulestr(said, dtstart=first)
        if not isinstance(found, rrule):
            raise NotARule("Write one rule.")
        return islice(found.replace(until=horizon), int(count) if count else None)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise NotARule(f"The rule is not understood: {error}.") from None


def _must_come(parts: dict[str, str]) -> None:
    """Refuse what may never come: whoever looks for the next of these looks until the year 9999."""
    interval = parts.get("INTERVAL", "1")
    if not re.fullmatch(r"[1-9]\d{0,2}", interval):
        raise NotARule("INTERVAL is a number from 1 to 999.")
    days = [name for name in _DAY_PARTS if name in parts]
    is_short = parts["FREQ"] in ("HOURLY", "DAILY")
    if is_short and interval != "1" and (days or "BYMONTH" in parts):
        raise NotARule("Where it comes by the hour or day, INTERVAL goes with no days or months.")
    if len(set(days) - {"BYDAY"}) > 1 or (
        "BYMONTH" in parts and {"BYYEARDAY", "BYWEEKNO"} & set(days)
    ):
        raise NotARule("Name days in one way: of the week, the month, the year, or by weeks.")
    if {"BYYEARDAY", "BYWEEKNO"} & set(days) and parts["FREQ"] != "YEARLY":
        raise NotARule("BYYEARDAY and BYWEEKNO go with FREQ=YEARLY.")
    if "BYSETPOS" in parts and (is_short or parts["FREQ"] == "WEEKLY" or not days):
        raise NotARule("BYSETPOS goes with days of FREQ=MONTHLY or FREQ=YEARLY.")
    if {"BYMONTH", "BYMONTHDAY"} <= parts.keys() and not any(
        abs(day) <= monthrange(2024, month)[1]
        for month in _numbers(parts["BYMONTH"], 1, 12)
        for day in _numbers(parts["BYMONTHDAY"], -31, 31)
    ):
        raise NotARule("It never comes.")


def _numbers(text: str, least: int, most: int) -> list[int]:
    found = [int(one) for one in text.split(",") if re.fullmatch(r"[+-]?\d{1,3}", one)]
    if len(found) != text.count(",") + 1 or not all(least <= one <= most and one for one in found):
        raise NotARule(f"{text[:40]} are not numbers from {least} to {most}.")
    return found


_DAY_PARTS = ("BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO")


def _until(text: str, place: ZoneInfo) -> datetime:
    """Its end in local time; a day alone is the whole day."""
    found = _UNTIL.fullmatch(text)
    if found is None:
        raise NotARule("UNTIL is written as 20271231 or 20271231T220000Z.")
    day, clock, is_utc = found.groups()
    try:
        at = datetime.strptime(day + (clock or "235959"), "%Y%m%d%H%M%S")  # noqa: DTZ007  local
        return at.replace(tzinfo=UTC).astimezone(place).replace(tzinfo=None) if is_utc else at
    except (ValueError, OverflowError):
        raise NotARule(f"{text} is no day.") from None


_DAYS = {
    "MO": "Monday",
    "TU": "Tuesday",
    "WE": "Wednesday",
    "TH": "Thursday",
    "FR": "Friday",
    "SA": "Saturday",
    "SU": "Sunday",
}
_WORKDAYS = "MO,TU,WE,TH,FR"


def in_words(rule: str, zone: str, begins: datetime) -> str:
    """`every Sunday at 02:00 (Europe/Berlin)`; the rule itself where that would not say it all."""
    parts = dict(
        part.split("=", 1) for part in rule.upper().removeprefix("RRULE:").split(";") if "=" in part
    )
    local = begins.astimezone(ZoneInfo(zone))
    days = parts.get("BYDAY", "")
    named = [_DAYS[day] for day in days.split(",") if day in _DAYS]
    when = {
        frozenset({"FREQ"}): {
            "HOURLY": "every hour",
            "DAILY": "every day",
            "WEEKLY": f"every {local:%A}",
            "MONTHLY": f"on day {local.day} of every month",
            "YEARLY": f"every {local:%d %B}",
        },
        frozenset({"FREQ", "BYDAY"}): {
            "WEEKLY": "Monday to Friday"
            if days == _WORKDAYS
            else "every " + " and ".join(named)
            if len(named) == len(days.split(","))
            else "",
        },
    }.get(frozenset(parts), {}).get(parts.get("FREQ", ""), "") or rule
    return f"{when} at {local:%H:%M} ({zone})"
