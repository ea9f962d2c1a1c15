"""What is written is true: links lead somewhere, lists are complete, commands exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands
from django.urls import reverse

from alerts.models import Rule
from alerts.rulebook.defaults import RULES
from alerts.values.wording import span
from metrics.doors import native
from sentinel_site.environment import Environment
from sentinel_site.management.commands.api_reference import PAGE, reference

ROOT = Path(settings.BASE_DIR)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DEPLOY = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    """The page without its code, in which brackets are no links."""
    return re.sub(r"```.*?```|^ {4}[^\n]*$|`[^`\n]*`", "", path.read_text(), flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def rows(page: str) -> list[list[str]]:
    """The cells of all tables' rows."""
    lines = (ROOT / page).read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]


def names(page: str) -> list[str]:
    """What stands first in each row."""
    return [row[0].strip("`") for row in rows(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = unquote(target).partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name}: {target}"
        assert found.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(found), f"{page.name}: {target}"


def test_every_page_is_linked_from_the_readme():
    linked = {target.partition("#")[0] for target in LINK.findall(prose(ROOT / "README.md"))}
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"} <= linked


def test_the_two_commands_come_first_in_the_readme():
    commands = re.findall(r"^ {4}(\S.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands[0] == "make run"
    assert "make test" in commands[:3]


def test_each_make_target_that_is_named_exists():
    known = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^ {4}|`)make ([a-z][a-z0-9-]*)", page.read_text(), re.M))
        assert named <= known, page.name
    assert {"run", "test", "help"} <= known


def test_each_command_of_manage_py_that_is_named_exists():
    known = {*get_commands(), "up"}
    for page in [*PAGES, *DEPLOY]:
        text = page.read_text()
        named = re.findall(r"manage\.py ([a-z_]+)|^ {4}(?:.*&& )?sm ([a-z_]+)", text, re.M)
        assert {one or other for one, other in named} <= known, page.name


def test_pictures_of_the_readme_are_small():
    pictures = list((ROOT / "docs" / "images").glob("*.png"))
    assert len(pictures) >= 4
    assert all(picture.stat().st_size <= 200_000 for picture in pictures)


# -- lists --------------------------------------------------------------------


def test_every_variable_is_explained_with_its_default():
    explained = {row[0].strip("`"): row[1] for row in rows("docs/configuration.md")}
    fields = {name.upper(): field for name, field in Environment.model_fields.items()}
    assert set(explained) - {"variable", "---"} == set(fields)
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        shown = explained[name]
        if default in ("", None) or str(default).startswith("insecure"):
            assert re.match("a known one|as |by |none", shown)
        elif isinstance(default, Path):
            assert shown == f"`{default.relative_to(ROOT)}`"
        else:
            assert shown.strip("`") == (str(default).lower() if default is False else str(default))


def test_every_dependency_is_explained_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    agent = tomllib.loads((ROOT / "agent_client" / "pyproject.toml").read_text())["project"]
    direct = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *agent["dependencies"],
    ]
    python = {re.match(r"[A-Za-z0-9-]+", one)[0] for one in direct}
    javascript = set(yaml.safe_load((ROOT / "package.json").read_text())["dependencies"])
    assert sorted(set(names("docs/dependencies.md")) - {"package", "---"}) == sorted(
        python | javascript
    )


def test_the_api_reference_is_up_to_date():
    assert PAGE.read_text() == reference(), "run: manage.py api_reference --write"


def in_words(limit: float) -> tuple[str, str]:
    """A limit as a number, and as a span of so many seconds."""
    return f"{limit:g}", span(timedelta(seconds=limit))


def test_the_default_rules_are_listed_with_their_limits():
    shown = {row[0]: row[1] for row in rows("docs/rules.md") if len(row) == 2}
    for rule in RULES:
        text = shown[rule["name"]]
        for severity, limit in rule["thresholds"].items():
            assert severity in text
            is_told = any(f"{severity} {said}" in text for said in in_words(limit))
            assert (
                is_told or limit == 1 or rule.get("kind") in (Rule.Kind.SILENCE, Rule.Kind.SERVICE)
            ), text
        if "recovery" in rule:
            assert any(f"recovery {said}" in text for said in in_words(rule["recovery"])), text


def test_every_code_that_a_report_may_be_rejected_with_is_listed():
    sources = [Path(native.__file__), ROOT / "metrics/ingest.py", ROOT / "metrics/batch.py"]
    text = (
        "".join(path.read_text() for path in sources)
        + (ROOT / "metrics" / "doors" / "entry.py")
        .read_text()
        .split("def _only_of")[1]
        .split("def ")[0]
    )
    used = set(
        re.findall(r'(?:_Refused\([^"]*|reject\([^"]*|Reject\([^"]*|item,\s*)"([a-z-]+)"', text)
    )
    used |= set(re.findall(r'"((?:not|too|no|more|wrong)-[a-z-]+)"', text))
    problems = {"not-reports", "too-many-reports"}
    listed = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs" / "wire.md").read_text()))
    assert used - problems - {"at", "report", "sequence", "agent"} <= listed


# -- deployment ---------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [path for path in DEPLOY if path.suffix == ".yaml"], ids=lambda path: path.name
)
def test_yaml_is_yaml(path):
    assert all(yaml.safe_load_all(path.read_text()))


def test_all_ways_to_deploy_start_the_same_processes():
    units = {
        path.stem.removeprefix("sentinella-"): re.search(
            r"ExecStart=\S+?/bin/(.*)", path.read_text()
        )[1].replace("%%", "%")
        for path in (ROOT / "deploy" / "systemd").glob("*.service")
    }
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    pods = {
        one["metadata"]["name"].removeprefix("sentinella-"): one
        for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
        if one["kind"] == "Deployment"
    }
    assert set(units) == set(pods) == {"web", "worker", "notifier", "beat"}
    for name in ("worker", "notifier", "beat"):
        command = " ".join(pods[name]["spec"]["template"]["spec"]["containers"][0]["command"])
        assert units[name] == command == " ".join(compose[name]["command"])
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    image = " ".join(yaml.safe_load(re.search(r"CMD (\[.*\])", dockerfile.replace("\\\n", ""))[1]))
    assert image.replace("0.0.0.0", "127.0.0.1") == units["web"]  # noqa: S104
    assert pods["beat"]["spec"]["replicas"] == 1


def test_the_processes_of_the_guide_are_those_of_the_units():
    shown = {row[0]: row[1].strip("`") for row in rows("docs/operator-guide.md") if len(row) == 3}
    for name in ("web", "worker", "notifier", "beat"):
        unit = (ROOT / "deploy" / "systemd" / f"sentinella-{name}.service").read_text()
        unit = unit.replace("%%", "%")
        assert f"/{shown[name]}" in unit


def test_health_is_asked_where_it_is_answered():
    for path in DEPLOY:
        for asked in re.findall(r"/(?:ready|health)z\b", path.read_text()):
            assert reverse(asked.strip("/"), urlconf=settings.PUBLIC_SCHEMA_URLCONF) == asked


# -- what must not be in them --------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, *DEPLOY], ids=lambda path: path.name)
def test_nothing_of_one_machine_is_in_it(path):
    text = path.read_text()
    assert not re.search(r"/(home|work|root|Users)/\w", text)
    assert not re.search(r"snt_[a-z0-9]{12}_[A-Za-z0-9]{40}", text), "a real key"
    assert not re.search(r"hooks\.slack\.com/services/T", text)
    assert not re.search(r"(index-url|registry=|proxy\.golang|--find-links)", text)
    for host in re.findall(r"https?://(?:[^@/\s]*@)?([a-z0-9.-]+\.[a-z]{2,})", text):
        known = ("example.org", "keepachangelog.com", "semver.org")
        assert host.endswith(known), f"{path.name}: {host}"
    for password in re.findall(r"://[^:/\s]*:([^@\s/]+)@", text):
        assert password in ("secret", "password", "change-me", "guest", "…") or password[0] == "$"


def test_shell_scripts_are_shell():
    for path in DEPLOY:
        if path.suffix == ".sh":
            subprocess.run(["/bin/sh", "-n", str(path)], check=True)
            assert path.stat().st_mode & 0o100
