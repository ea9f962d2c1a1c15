"""The kit: what templates name exists, numbers and times are said alike, templates lint clean."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.template import Context, Template
from django.template.loader import get_template

from accounts.access import Access
from accounts.models import Role, Tenant
from sentinel_site import frontend
from sentinel_site.kit.templatetags import ui

TEMPLATES = settings.BASE_DIR / "templates"
PAGES = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.html"))
STATIC = settings.BASE_DIR / "static"


@pytest.mark.parametrize("name", PAGES)
def test_a_template_compiles(name: str) -> None:
    assert get_template(name).origin.name == str(TEMPLATES / name)


def test_a_template_opens_with_what_it_needs() -> None:
    silent = [
        name
        for name in PAGES
        if "/mail/" not in name
        and not name.startswith("drf_spectacular/")
        and not (TEMPLATES / name).read_text().startswith("{#")
    ]
    assert silent == []


def test_no_comment_of_a_template_spans_lines_and_so_shows() -> None:
    open_ended = [
        name
        for name in PAGES
        for line in (TEMPLATES / name).read_text().splitlines()
        if line.count("{#") != line.count("#}")
    ]
    assert open_ended == []


def test_every_icon_that_a_template_names_is_in_the_sprite() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r'{% icon "([^"]+)"', (TEMPLATES / page).read_text())
    }
    assert named
    assert named <= set(frontend.ICONS)


def test_every_shape_is_drawn() -> None:
    drawn = set(re.findall(r'<symbol id="([^"]+)"', (STATIC / "img" / "states.svg").read_text()))
    assert {ui.shape_of(state) for state in ui.STATE_WORDS} <= drawn


def test_the_templates_lint_clean() -> None:
    djlint = Path(sys.executable).with_name("djlint")
    ran = subprocess.run(
        [djlint, "--profile", "django", "--lint", TEMPLATES, "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        cwd=settings.BASE_DIR,
    )
    assert ran.returncode == 0, ran.stdout


def test_our_scripts_name_only_colours_that_exist() -> None:
    tokens = set(re.findall(r"--([\w-]+):", (STATIC / "css" / "tokens.css").read_text()))
    used = set(re.findall(r"var\(--([\w-]+)", (STATIC / "css" / "app.css").read_text()))
    assert used <= tokens | {"c", "ct", "cs"}


# -- words --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ui.NOTHING),
        (0, "0 %"),
        (0.04, "0.0 %"),
        (4.25, "4.2 %"),
        (9.97, "10 %"),
        (38.4, "38 %"),
        (100.0, "100 %"),
        (float("nan"), ui.NOTHING),
    ],
)
def test_a_percentage_has_three_digits_at_most(value: float | None, said: str) -> None:
    assert ui.percent(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KB"),
        (64 * 1024**3, "64 GB"),
        (24.4 * 1024**3, "24.4 GB"),
        (3 * 1024**6, "3072 PB"),
        (None, ui.NOTHING),
    ],
)
def test_memory_is_counted_in_powers_of_1024(value: float | None, said: str) -> None:
    assert ui.bytes_(value) == said


def test_disks_are_counted_as_they_are_sold() -> None:
    assert ui.bytes_(960 * 10**9, "decimal") == "960 GB"


def test_traffic_is_counted_in_powers_of_1000() -> None:
    assert ui.rate(412_000_000) == "412 MB/s"


@pytest.mark.parametrize(
    ("value", "said"), [(1042, "1,042"), (0.25, "0.25"), (18_200, "18.2 k"), (1_900_000, "1.9 M")]
)
def test_large_numbers_are_shortened(value: float, said: str) -> None:
    assert ui.number(value) == said


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(seconds=12), "12 s"),
        (timedelta(milliseconds=610), "0.61 s"),
        (timedelta(minutes=14, seconds=59), "14 min"),
        (timedelta(hours=6, minutes=21), "6 h 21 min"),
        (timedelta(hours=6), "6 h"),
        (timedelta(days=1), "1 day"),
        (timedelta(days=1, hours=3), "1 d 3 h"),
        (timedelta(days=112, hours=5), "112 days"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_a_span_has_two_units_at_most(length: timedelta, said: str) -> None:
    assert ui.span(length) == said


def test_an_old_value_is_marked_and_keeps_its_exact_time() -> None:
    at = datetime.now(UTC) - timedelta(minutes=6)
    html = str(ui.age(at, 210))
    assert 'class="stale"' in html
    assert at.strftime("%Y-%m-%d %H:%M:%S UTC") in html
    assert ">6 min<" in html
    assert "stale" not in str(ui.age(at))


def test_a_sparkline_leaves_gaps_out() -> None:
    assert ui.sparkline([0, None, 10], 100, 22) == "0.0,21.0 100.0,1.0"
    assert ui.sparkline([1], 100, 22) == ""
    assert ui.sparkline(None) == ""


def test_only_the_page_one_is_on_is_marked() -> None:
    request = SimpleNamespace(resolver_match=SimpleNamespace(view_name="alerts:incident"))
    template = Template("{% load ui %}<a{% current 'alerts:list' 'alerts:incident' %}>")
    assert template.render(Context({"request": request})) == '<a aria-current="page">'
    assert template.render(Context({})) == "<a>"


def test_a_role_may_what_the_ones_below_it_may() -> None:
    access = Access(Tenant(slug="acme"), Role.MEMBER)
    assert ui.may(access, "viewer")
    assert not ui.may(access, "admin")
    assert not ui.may(None, "viewer")


# -- colours ------------------------------------------------------------------


def _tokens(theme: int) -> dict[str, str]:
    """The colours of one theme by name; 0 is light, 1 dark."""
    text = (STATIC / "css" / "tokens.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\);", text)
    return {name: colours[theme] for name, *colours in pairs}


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


STATES = ("critical", "error", "warning", "info", "ok", "planned")


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_aa_in_both_themes(theme: int) -> None:
    colour = _tokens(theme)
    on_grounds = [
        (text, ground)
        for text in ("ink", "muted", "faint", "accent", *(f"{state}-text" for state in STATES))
        for ground in ("canvas", "surface")
    ]
    on_soft = [(f"{state}-text", f"{state}-soft") for state in STATES]
    others = [("on-ink", "ink"), ("on-critical", "critical"), ("muted", "fill"), ("ink", "fill")]
    poor = {
        (text, ground): round(_contrast(colour[text], colour[ground]), 2)
        for text, ground in (*on_grounds, *on_soft, *others)
        if _contrast(colour[text], colour[ground]) < 4.5
    }
    assert poor == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_shapes_and_edges_of_fields_stand_out_in_both_themes(theme: int) -> None:
    colour = _tokens(theme)
    poor = {
        name: round(_contrast(colour[name], colour["surface"]), 2)
        for name in (*STATES, "control")
        if _contrast(colour[name], colour["surface"]) < 3
    }
    assert poor == {}
