"""A chart as a PNG, for where no page draws it: lines, a limit, times and numbers.

The ground is clear and the ink of middle brightness, so that it reads on light and dark alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from alerts.values.wording import number

#: Pixels; mail shows it at half of that, so that it is sharp on any screen.
WIDTH, HEIGHT = 1136, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 130, 20, 24, 48
_INK, _GRID = (122, 132, 144, 255), (122, 132, 144, 70)
_LIMIT = (214, 57, 57, 255)
_LINES = (
    (47, 127, 201, 255), (184, 117, 3, 255), (43, 138, 62, 255), (132, 94, 194, 255),
    (0, 137, 150, 255), (190, 75, 130, 255),
)  # fmt: skip
_DASH = 12
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_BOUNDS = 4  # of grid lines, about


@dataclass(frozen=True)
class Curve:
    """Times in seconds since 1970, and values or None where nothing is known."""

    times: Sequence[float]
    values: Sequence[float | None]


def draw(
    curves: Sequence[Curve], start: datetime, end: datetime, unit: str, limit: float | None = None
) -> bytes:
    """Curves between two times, with the limit that they are held to, as a PNG.

    Raises ValueError where no curve has a value.
    """
    known = [one for curve in curves for one in curve.values if one is not None]
    if not known:
        raise ValueError("There are no values to draw.")
    low, high, step = _scale(known if limit is None else [*known, limit])
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    ink = ImageDraw.Draw(image)
    font = ImageFont.load_default(24)

    def x(at: float) -> float:
        share = (at - start.timestamp()) / (end - start).total_seconds()
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    for place in range(round((high - low) / step) + 1):
        value = low + place * step
        ink.line([(_LEFT, y(value)), (WIDTH - _RIGHT, y(value))], fill=_GRID, width=2)
        label = number(value, unit)
        ink.text((_LEFT - 12, y(value)), label, fill=_INK, font=font, anchor="rm")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = start + (end - start) * share
        anchor = {0.0: "la", 1.0: "ra"}.get(share, "ma")
        label = f"{at.astimezone(UTC):%H:%M}"
        ink.text(
            (x(at.timestamp()), HEIGHT - _BOTTOM + 12), label, fill=_INK, font=font, anchor=anchor
        )
    if limit is not None:
        for left in range(_LEFT, WIDTH - _RIGHT, 2 * _DASH):
            right = min(left + _DASH, WIDTH - _RIGHT)
            ink.line([(left, y(limit)), (right, y(limit))], fill=_LIMIT, width=3)
    for place, curve in enumerate(curves):
        color = _LINES[place % len(_LINES)]
        for run in _runs(curve):
            points = [(x(at), y(value)) for at, value in run]
            if len(points) == 1:
                ((across, down),) = points
                ink.ellipse([across - 3, down - 3, across + 3, down + 3], fill=color)
            else:
                ink.line(points, fill=color, width=5, joint="curve")
    found = BytesIO()
    image.save(found, "PNG", optimize=True)
    return found.getvalue()


def _runs(curve: Curve) -> list[list[tuple[float, float]]]:
    """The curve in pieces: where nothing is known it is broken."""
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(curve.times, curve.values, strict=True):
        if value is not None:
            found[-1].append((at, value))
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Round bounds around these values, and round steps between them."""
    low, high = min(values), max(values)
    if low >= 0 and low < high / 2:
        low = 0.0
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    rough = (high - low) / _BOUNDS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in _STEPS if one * power >= rough * 0.999)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step
