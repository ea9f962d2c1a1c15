"""Numbers and spans as people read them, and what an alert is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

#: Tags that say which one of several it is, the most telling first.
_TELLING = ("mount", "device", "interface", "subject")


def number(value: float, unit: str = "") -> str:
    """`93.4 %`, `1.2 GiB`, `12`."""
    if unit == "percent":
        return f"{value:.1f} %"
    if unit == "seconds":
        return span(timedelta(seconds=value))
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


def subject_of(measurement: str, field: str, tags: Mapping[str, str]) -> str:
    """What of the server it is: a mount, a device, or the measurement itself."""
    for name in _TELLING:
        if tags.get(name):
            return tags[name]
    rest = " ".join(value for name, value in sorted(tags.items()) if name != "service")
    return rest or f"{measurement} {field}"
