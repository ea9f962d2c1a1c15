"""Every page and fragment is drawn with what its opening comment asks for, and keeps the CSP."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from typing import Any

import pytest
from django.template.loader import get_template

from tests.site.cloud import make_incident
from tests.site.scenes import SCENES, draw


@pytest.fixture(autouse=True)
def _shell_of_the_scene(settings: Any) -> None:
    settings.TEMPLATES = copy.deepcopy(settings.TEMPLATES)
    processors = settings.TEMPLATES[0]["OPTIONS"]["context_processors"]
    processors[:] = [name for name in processors if "alerts" not in name and "messages" not in name]


class Page(HTMLParser):
    """What a test asks of a drawn page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.ids: list[str] = []
        self.labels_for: set[str] = set()
        self.referred: set[str] = set()
        self.fields: list[dict[str, str | None]] = []
        self.heads = 0
        self.landmarks: list[str] = []
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self._script = tag == "script" and "src" not in given
        if tag == "style" or "style" in given:
            self.forbidden.append(f"<{tag} style>")
        self.forbidden += [f"<{tag} {name}>" for name in given if name.startswith(("on", "hx-on"))]
        if tag == "a" and (given.get("href") or "").startswith("javascript:"):
            self.forbidden.append("javascript:")
        if tag == "h1":
            self.heads += 1
        if tag == "main":
            self.landmarks.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "label" and given.get("for"):
            self.labels_for.add(str(given["for"]))
        for name in ("aria-labelledby", "aria-describedby", "aria-controls"):
            self.referred |= set((given.get(name) or "").split())
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.fields.append(given)

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.forbidden.append("inline script")
        self._script = False


@pytest.mark.parametrize("scene", SCENES)
def test_a_page_has_no_inline_script_or_style(scene: str) -> None:
    assert Page(draw(scene)).forbidden == []


@pytest.mark.parametrize("scene", SCENES)
def test_a_page_says_nothing_twice_and_refers_to_what_is_there(scene: str) -> None:
    html = draw(scene)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids)), sorted(page.ids)
    if "<html" in html:
        assert page.heads == 1
        assert page.landmarks == ["main"]
        made_by_script = {"dialog-title"}
        assert page.referred <= set(page.ids) | made_by_script


@pytest.mark.parametrize("scene", [name for name in SCENES if name not in ("palette",)])
def test_every_field_has_a_label(scene: str) -> None:
    page = Page(draw(scene))
    for field in page.fields:
        inside_a_label = field.get("type") in ("radio", "checkbox") and not field.get("id")
        assert inside_a_label or field.get("aria-label") or field.get("id") in page.labels_for, (
            field
        )


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_of_the_template_language_is_left_over(scene: str) -> None:
    html = draw(scene)
    assert "{%" not in html
    assert "{{" not in html
    assert "{#" not in html
    assert "None" not in html


def test_the_error_page_needs_no_request() -> None:
    assert "Something broke on our side" in get_template("500.html").render()


def test_a_name_that_is_markup_stays_text() -> None:
    SCENES["evil"] = (
        "alerts/_open.html",
        "dashboard",
        {"incidents": [make_incident(1, "<script>alert(1)</script>", "info")]},
    )
    try:
        assert "<script>" not in draw("evil")
    finally:
        del SCENES["evil"]
