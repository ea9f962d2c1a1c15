"""Numbers and spans as people read them, and what an alert is about."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import timedelta

#: Tags that say which one of several it is, the most telling first.
_TELLING = ("mount", "device", "interface", "subject")

#: Seconds beyond which a span is told as this one: 3,000 years, which a timedelta still holds.
LONGEST_SECONDS = 1e11


def number(value: float, unit: str = "") -> str:
    """`93.4 %`, `1.2 GiB`, `12`."""
    if unit == "percent":
        return f"{value:.1f} %"
    if unit == "seconds":
        return span(timedelta(seconds=min(max(value, -LONGEST_SECONDS), LONGEST_SECONDS)))
    if unit == "bytes_per_second":
        return f"{number(value, 'bytes')}/s"
    if unit == "bytes":
        size = abs(value)
        for name in ("B", "KiB", "MiB", "GiB", "TiB"):
            if size < 1024 or name == "TiB":
                return f"{value:.0f} {name}" if name == "B" else f"{value:.1f} {name}"
            size /= 1024
            value /= 1024
    return f"{value:.2f}".rstrip("0").rstrip(".")


@functools.lru_cache(maxsize=1024)
def span(length: timedelta) -> str:
    """`20 s`, `5 min`, `1 h 30 min`, `2 d`."""
    seconds = int(length.total_seconds())
    parts = [
        f"{amount} {name}"
        for amount, name in (
            (seconds // 86400, "d"),
            (seconds % 86400 // 3600, "h"),
            (seconds % 3600 // 60, "min"),
            (seconds % 60, "s"),
        )
        if amount
    ]
    return " ".join(parts[:2]) or "0 s"


class BadSpan(ValueError):
    """It is no span; the text says how to write one."""


_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|sec|s|m|h|d)?\s*")
_UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def read_span(text: str) -> timedelta:
    """`20 s`, `5 min`, `1 h 30 min`; a bare number is seconds. Raises BadSpan."""
    parts = list(_PART.finditer(text.strip().lower()))
    if not parts or "".join(part[0] for part in parts) != text.strip().lower():
        raise BadSpan("Write a span like 20 s, 5 min or 1 h.")
    try:
        return timedelta(seconds=sum(float(part[1]) * _UNITS[part[2] or ""] for part in parts))
    except OverflowError:
        raise BadSpan("That is longer than anything lasts.") from None


def span_exactly(length: timedelta) -> str:
    """As `span`, with nothing left out: `read_span` gives the same length."""
    whole, rest = divmod(length, timedelta(seconds=1))
    seconds = int(whole)
    parts = [
        f"{amount} {name}"
        for amount, name in (
            (seconds // 86400, "d"),
            (seconds % 86400 // 3600, "h"),
            (seconds % 3600 // 60, "min"),
        )
        if amount
    ]
    last = seconds % 60 + rest / timedelta(seconds=1)
    if last or not parts:
        parts.append(f"{last:.6f}".rstrip("0").rstrip(".") + " s")
    return " ".join(parts)


def subject_of(measurement: str, field: str, tags: Mapping[str, str]) -> str:
    """What of the server it is: a mount, a device, or the measurement itself."""
    for name in _TELLING:
        if tags.get(name):
            return tags[name]
    rest = " ".join(value for name, value in sorted(tags.items()) if name != "service")
    return rest or f"{measurement} {field}"
