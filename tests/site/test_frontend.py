"""The front-end files: fetched once, laid out whole, and nothing about hosts in the lock."""

from __future__ import annotations

import gzip
import json
import os
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sentinel_site import frontend

ROOT = frontend.REPOSITORY
TAKEN = '<svg viewBox="0 0 24 24">\n<path stroke="none" d="M0 0h24v24H0z"/><path d="M1 2"/></svg>'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a lock file, and an npm that makes the packages without a network."""
    (tmp_path / "package-lock.json").write_text("{}")
    packages = tmp_path / "packages"
    for source in frontend.FILES:
        path = packages / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    outline = packages / "@tabler" / "icons" / "icons" / "outline"
    outline.mkdir(parents=True)
    for name in frontend.ICONS:
        (outline / f"{name}.svg").write_text(TAKEN)
    tools = tmp_path / "bin"
    tools.mkdir()
    npm = tools / "npm"
    npm.write_text('#!/bin/sh\necho "$@" >> npm-calls\ncp -r packages node_modules\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_what_the_pages_use_is_laid_out_and_a_second_run_fetches_nothing(project: Path) -> None:
    said: list[str] = []
    assert frontend.install(project, said.append)
    vendor = project / "static" / "vendor"
    assert (vendor / "htmx.js").read_text() == "htmx.org/dist/htmx.min.js"
    assert (vendor / "licenses" / "uplot.txt").is_file()
    assert said
    assert not frontend.install(project, said.append)
    assert (project / "npm-calls").read_text().count("ci") == 1


def test_a_changed_lock_file_is_fetched_again(project: Path) -> None:
    frontend.install(project, print)
    (project / "package-lock.json").write_text('{"changed": true}')
    assert frontend.install(project, print)


def test_a_fetch_that_fails_says_why_and_is_tried_again(project: Path) -> None:
    npm = project / "bin" / "npm"
    good = npm.read_text()
    npm.write_text("#!/bin/sh\necho no way out >&2\nexit 1\n")
    with pytest.raises(frontend.FrontendError, match="no way out"):
        frontend.install(project, print)
    npm.write_text(good)
    assert frontend.install(project, print)


def test_a_package_without_its_file_is_named(project: Path) -> None:
    (project / "packages" / "uplot" / "dist" / "uPlot.min.css").unlink()
    with pytest.raises(frontend.FrontendError, match=r"uPlot\.min\.css"):
        frontend.install(project, print)


def test_the_sprite_holds_each_icon_by_name(tmp_path: Path) -> None:
    (tmp_path / "bell.svg").write_text(TAKEN)
    sprite = ElementTree.fromstring(frontend.sprite(tmp_path, ["bell"]))  # noqa: S314  our own text
    (symbol,) = sprite
    assert symbol.get("id") == "bell"
    assert [path.get("d") for path in symbol] == ["M1 2"]
    with pytest.raises(frontend.FrontendError, match="horn"):
        frontend.sprite(tmp_path, ["horn"])


def test_the_lock_names_versions_and_no_hosts() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    named = {path: package for path, package in packages.items() if path}
    assert all(package["version"] and package["integrity"] for package in named.values())
    assert not any("resolved" in package for package in packages.values())


def test_scripts_weigh_at_most_150_kilobytes_compressed() -> None:
    own = list((ROOT / "static" / "js").glob("*.js"))
    fetched = [ROOT / "static" / "vendor" / name for name in ("htmx.js", "uplot.js")]
    if not all(path.is_file() for path in fetched):
        pytest.fail("Run python -m sentinel_site.frontend first; `make test` does.")
    weight = sum(len(gzip.compress(path.read_bytes())) for path in (*own, *fetched))
    assert weight <= 150_000
