"""How numbers, times and states are said and drawn, alike on every page.

What is not known is a dash. Units follow a space, and never more than three digits carry meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django import template
from django.forms import BoundField
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sentinel_site.kit import tenancy

register = template.Library()

NOTHING = "\N{EN DASH}"
BINARY = ("B", "KB", "MB", "GB", "TB", "PB")

STATE_WORDS = {
    "critical": "Critical",
    "error": "Error",
    "warning": "Warning",
    "info": "Info",
    "debug": "Debug",
    "ok": "Fine",
    "up": "Up",
    "down": "Down",
    "unknown": "Unknown",
    "silent": "Silent",
    "maintenance": "Maintenance",
    "blackout": "Blackout",
    "retired": "Retired",
}
SHAPES = {"up": "ok", "down": "critical", "unknown": "silent", "debug": "info"}


# -- drawings -----------------------------------------------------------------


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """An outline icon from the sprite; `name` must be among `frontend.ICONS`."""
    return format_html(
        '<svg class="i {}" aria-hidden="true"><use href="{}#{}"></use></svg>',
        css,
        static("vendor/icons.svg"),
        name,
    )


@register.simple_tag
def shape(state: str, css: str = "", label: str = "") -> SafeString:
    """The shape of a severity or status. With no word beside it, give `label`."""
    name = SHAPES.get(state, state)
    if label:
        return format_html(
            '<svg class="g s-{} {}" role="img" aria-label="{}"><use href="{}#{}"></use></svg>',
            name,
            css,
            label,
            static("img/states.svg"),
            name,
        )
    return format_html(
        '<svg class="g s-{} {}" aria-hidden="true"><use href="{}#{}"></use></svg>',
        name,
        css,
        static("img/states.svg"),
        name,
    )


@register.filter
def state_word(state: str) -> str:
    """A severity or status as people read it: "Critical", "Silent"."""
    return STATE_WORDS.get(state, str(state).capitalize())


@register.filter
def shape_of(state: str) -> str:
    """The shape (and so the colour) that a severity or status has."""
    return SHAPES.get(state, state)


@register.simple_tag
def sparkline(values: Sequence[float | None] | None, width: int = 112, height: int = 22) -> str:
    """Points of a polyline through `values` from left to right, scaled to their own range from 0.

    A gap (None) is left out; with fewer than two values there is nothing to draw.
    """
    known = [value for value in values or () if value is not None]
    if not values or len(known) < 2:
        return ""
    top = max(known) or 1.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 1 - (height - 2) * max(value, 0) / top:.1f}"
        for index, value in enumerate(values)
        if value is not None
    )


@register.filter
def share(value: float | None) -> str:
    """A percentage as the width of a drawing 100 units wide."""
    return f"{min(100.0, max(0.0, value or 0.0)):.1f}"


# -- numbers ------------------------------------------------------------------


@register.filter
def percent(value: float | None) -> str:
    """ "38 %"; one decimal below 10."""
    if not _is_number(value):
        return NOTHING
    amount = float(value or 0)
    return f"{amount:.{1 if 0 < amount < 9.95 else 0}f} %"


@register.filter
def number(value: float | None) -> str:
    """1,042 in full below ten thousand, then "18.2 k", "1.9 M"."""
    if not _is_number(value):
        return NOTHING
    amount = float(value or 0)
    if abs(amount) < 10_000:
        return f"{amount:,.{_after_point(amount)}f}"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(amount) >= size:
            return f"{_digits(amount / size)} {unit}"
    return NOTHING


@register.filter(name="bytes")
def bytes_(value: float | None, base: str = "") -> str:
    """ "24.4 GB" in powers of 1,024, as memory is counted; `:"decimal"` as disks are sold."""
    return _scaled(value, 1000.0 if base == "decimal" else 1024.0, "")


@register.filter
def rate(value: float | None) -> str:
    """Bytes a second as "412 MB/s", in powers of 1,000 as networks are counted."""
    return _scaled(value, 1000.0, "/s")


@register.filter
def measured(value: float | None, unit: str = "") -> str:
    """A number in its unit: percent, bytes, bytes_per_second, seconds, count or nothing."""
    if unit == "percent":
        return percent(value)
    if unit == "bytes":
        return bytes_(value)
    if unit == "bytes_per_second":
        return rate(value)
    if unit == "seconds" and _is_number(value):
        return span(value)
    return number(value)


def _scaled(value: float | None, base: float, suffix: str) -> str:
    if not _is_number(value):
        return NOTHING
    amount = float(value or 0)
    for unit in BINARY:
        if abs(amount) < base or unit == BINARY[-1]:
            return f"{_digits(amount) if unit != 'B' else round(amount)} {unit}{suffix}"
        amount /= base
    return NOTHING


def _digits(amount: float) -> str:
    return f"{amount:.{_decimals(amount, 1)}f}".removesuffix(".0")


def _decimals(amount: float, most: int) -> int:
    return (
        0
        if abs(amount) >= 100 or (most == 1 and abs(amount) >= 10 and amount == int(amount))
        else most
    )


def _after_point(amount: float) -> int:
    if amount == int(amount) or abs(amount) >= 100:
        return 0
    return 1 if abs(amount) >= 1 else 2


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value


# -- times --------------------------------------------------------------------


@register.filter
def span(value: timedelta | float | None) -> str:
    """A duration in at most two units: "12 s", "14 min", "6 h 21 min", "112 days"."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if 0 < seconds < 1:
        return f"{seconds:.2f} s"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        hours, minutes = divmod(whole // 60, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(whole // 3600, 24)
    if days < 3 and hours:
        return f"{days} d {hours} h"
    return "1 day" if days == 1 else f"{days} days"


@register.filter
def age(at: datetime | None, stale_after: float | None = None) -> SafeString | str:
    """How long ago, ticking in the browser; turns to the warning colour after so many seconds."""
    if at is None:
        return NOTHING
    since = timezone.now() - at
    stale = stale_after is not None and since.total_seconds() > stale_after
    return format_html(
        '<time data-age datetime="{}" title="{}"{}{}>{}</time>',
        _iso(at),
        _exact(at),
        "" if stale_after is None else format_html(' data-stale="{}"', int(stale_after)),
        SafeString(' class="stale"') if stale else "",
        span(since),
    )


@register.filter
def clock(at: datetime | None) -> SafeString | str:
    """The time of day, with the date when it was another day; the browser puts it in its zone."""
    if at is None:
        return NOTHING
    local = at.astimezone(UTC)
    today = local.date() == timezone.now().date()
    return format_html(
        '<time data-clock datetime="{}" title="{}">{}</time>',
        _iso(at),
        _exact(at),
        f"{local:%H:%M}" if today else f"{local.day} {local:%b %H:%M}",
    )


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """Date and time to the millisecond, as log lines have it."""
    if at is None:
        return NOTHING
    return format_html(
        '<time data-clock="exact" datetime="{}" title="{}">{}</time>',
        at.astimezone(UTC).isoformat(timespec="milliseconds"),
        _exact(at),
        f"{at.astimezone(UTC):%H:%M:%S}.{at.microsecond // 1000:03d}",
    )


@register.filter
def from_unix(value: float | None) -> datetime | None:
    """Unix seconds as a time."""
    return None if value is None else datetime.fromtimestamp(float(value), UTC)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _exact(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


# -- forms and lists ----------------------------------------------------------


@register.filter
def kind(field: BoundField) -> str:
    """What a form field is drawn as: input, select, textarea, checkbox, radios or hidden."""
    widget = field.field.widget
    if widget.is_hidden:
        return "hidden"
    return {
        "CheckboxInput": "checkbox",
        "Select": "select",
        "NullBooleanSelect": "select",
        "Textarea": "textarea",
        "RadioSelect": "radios",
        "CheckboxSelectMultiple": "radios",
    }.get(type(widget).__name__, "input")


@register.filter
def described(field: BoundField) -> SafeString:
    """The field's widget, tied to its help and its errors for those who listen to the page."""
    ids = []
    if field.help_text:
        ids.append(f"{field.auto_id}_help")
    if field.errors:
        ids.append(f"{field.auto_id}_error")
    attributes: dict[str, Any] = {}
    if ids:
        attributes["aria-describedby"] = " ".join(ids)
    if field.errors:
        attributes["aria-invalid"] = "true"
    return SafeString(field.as_widget(attrs=attributes))


@register.filter
def item(mapping: Any, key: Any) -> Any:
    """The value of a key that a variable names."""
    return mapping.get(key) if hasattr(mapping, "get") else None


# -- where one is, and what one may --------------------------------------------


@register.simple_tag(takes_context=True)
def current(context: template.Context, *names: str) -> str:
    """Marks a link as the page one is on, when that page's URL has one of these names."""
    match = getattr(context.get("request"), "resolver_match", None)
    return SafeString(' aria-current="page"') if match and match.view_name in names else ""


@register.simple_tag
def public_path(name: str, *args: Any) -> str:
    """The path of a public page from the root of the host, also below an organization's mount."""
    return tenancy.public_path(name, *args)


@register.filter
def may(access: Any, role: str) -> bool:
    """Whether this access includes what `role` may do; nobody may anything without an access."""
    return bool(access) and bool(access.may(type(access.role)(role)))


@register.filter
def timesince_span(until: datetime | None, since: datetime | None) -> str:
    """The time between two moments: "6 h 21 min"."""
    return NOTHING if until is None or since is None else span(until - since)


@register.filter
def words(text: str) -> list[str]:
    """The words of a text, to loop over."""
    return text.split()


@register.filter
def first_line(text: str) -> str:
    """The first line; a traceback's head."""
    return text.partition("\n")[0]


@register.filter
def linebreaks_count(text: str) -> int:
    """How many lines a text has."""
    return text.count("\n") + 1


@register.filter
def milliseconds(seconds: float) -> str:
    """ "14 ms", "1.2 s"."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@register.filter
def is_past(at: datetime) -> bool:
    return at <= timezone.now()
