"""Entries of the knowledge base, and reading them from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: What a line may accuse: the services that others depend on, and what hosts are made of.
DEPENDENCIES = frozenset(
    {"rabbitmq", "mariadb", "memcached", "haproxy", "keepalived", "libvirt", "openvswitch"}
    | {"keystone", "placement", "nova", "neutron", "glance", "cinder", "heat"}
    | {"storage", "host", "disk", "memory", "network", "clock", "certificate"}
)
#: How an entry's lines are known: provoked on a real cloud, or published by those who got them.
EVIDENCE = ("seen", "public")

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
#: Repeats without bound that take anything, or a group: these could make a search slow.
_UNBOUNDED = re.compile(r"(?<!\\)\.[*+]|\)[*+]|[*+]\)?\{")
_REQUIRED = {
    *("id", "title", "about", "evidence", "match", "meaning", "causes", "check", "do", "examples"),
}
_KEYS = _REQUIRED | {"counterexamples", "releases", "unless", "services"}


class BadKnowledge(ValueError):
    """A file of the knowledge base does not hold what it must; names the file and the entry."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line has `text`; where `pattern` is given, that too."""

    text: str
    pattern: re.Pattern[str] | None = None

    def matches(self, message: str) -> bool:
        if self.text not in message:
            return False
        return self.pattern is None or self.pattern.search(message) is not None


@dataclass(frozen=True, slots=True)
class Check:
    """A command, and what to look for in its answer."""

    run: str
    see: str


@dataclass(frozen=True, slots=True)
class Example:
    """A line as that service writes it."""

    service: str
    line: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One known failure."""

    id: str
    project: str
    title: str
    #: Which dependencies the line accuses; empty: only who writes it.
    about: tuple[str, ...]
    #: One of EVIDENCE.
    evidence: str
    patterns: tuple[Pattern, ...]
    #: Text that makes a line another entry's.
    unless: tuple[str, ...]
    #: Who writes it: `nova` is nova and all of nova-*; empty: anyone.
    services: tuple[str, ...]
    meaning: str
    causes: tuple[str, ...]
    checks: tuple[Check, ...]
    actions: tuple[str, ...]
    #: First and last release that writes it, lower case; empty: not bounded there.
    releases: tuple[str, str]
    examples: tuple[Example, ...]
    counterexamples: tuple[Example, ...]

    def written_by(self, service: str) -> bool:
        """Whether this service may write it. An unknown service (empty) may."""
        if not self.services or not service:
            return True
        return any(service == one or service.startswith(one + "-") for one in self.services)

    def matches(self, service: str, message: str) -> bool:
        return (
            any(pattern.matches(message) for pattern in self.patterns)
            and self.written_by(service)
            and not any(text in message for text in self.unless)
        )

    @property
    def specificity(self) -> tuple[int, int, str]:
        """Sorts the most specific first: with services, then the longest text, then by id."""
        return (0 if self.services else 1, -min(len(one.text) for one in self.patterns), self.id)


def read_folder(folder: Path) -> tuple[Entry, ...]:
    """All entries of a folder's `*.yaml`, most specific first. Raises BadKnowledge."""
    entries = [entry for path in sorted(folder.glob("*.yaml")) for entry in _read_file(path)]
    by_id: dict[str, Entry] = {}
    for entry in entries:
        if entry.id in by_id:
            other = by_id[entry.id].project
            raise BadKnowledge(f"{entry.project}.yaml, {entry.id}: the id is taken in {other}.yaml")
        by_id[entry.id] = entry
    return tuple(sorted(entries, key=lambda entry: entry.specificity))


def _read_file(path: Path) -> list[Entry]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadKnowledge(f"{path.name}: this is not YAML: {error}") from error
    if not isinstance(document, list):
        raise BadKnowledge(f"{path.name}: a list of entries is needed")
    return [_Reader(path, number, one).entry() for number, one in enumerate(document, 1)]


class _Reader:
    """Reads one entry; every complaint names its file and itself."""

    def __init__(self, path: Path, number: int, given: object) -> None:
        self._project = path.stem
        self._where = f"{path.name}, entry {number}"
        self._given: Mapping[str, Any] = self._mapping(given, "an entry")
        if isinstance(name := self._given.get("id"), str):
            self._where = f"{path.name}, {name}"

    def entry(self) -> Entry:
        missing = sorted(_REQUIRED - set(self._given))
        if missing:
            raise self._bad(f"{', '.join(missing)} missing")
        unknown = sorted(map(str, set(self._given) - _KEYS))
        if unknown:
            raise self._bad(f"{', '.join(unknown)} not known")
        if not _ID.fullmatch(self._text("id")):
            raise self._bad("an id has lower-case letters and digits, joined by -")
        about = self._texts("about", empty=True)
        if strange := sorted(set(about) - DEPENDENCIES):
            raise self._bad(f"about: {', '.join(strange)} not among the dependencies")
        evidence = self._text("evidence")
        if evidence not in EVIDENCE:
            raise self._bad(f"evidence is one of {', '.join(EVIDENCE)}")
        return Entry(
            id=self._text("id"),
            project=self._project,
            title=self._text("title"),
            about=about,
            evidence=evidence,
            patterns=tuple(map(self._pattern, self._list("match"))),
            unless=self._texts("unless", empty=True),
            services=self._texts("services", empty=True),
            meaning=self._text("meaning"),
            causes=self._texts("causes"),
            checks=tuple(map(self._check, self._list("check"))),
            actions=self._texts("do"),
            releases=self._releases(),
            examples=tuple(map(self._example, self._list("examples"))),
            counterexamples=tuple(map(self._example, self._list("counterexamples", empty=True))),
        )

    def _pattern(self, given: object) -> Pattern:
        if isinstance(given, str):
            return Pattern(self._said(given, "match"))
        parts = self._mapping(given, "match", {"text", "pattern"})
        text = self._said(parts.get("text"), "match: text")
        written = self._said(parts.get("pattern"), "match: pattern")
        if _UNBOUNDED.search(written):
            raise self._bad(f"match: bound what may be anything, as in .{{0,200}}: {written}")
        try:
            return Pattern(text, re.compile(written))
        except re.error as error:
            raise self._bad(f"match: {error}: {written}") from error

    def _check(self, given: object) -> Check:
        parts = self._mapping(given, "check", {"run", "see"})
        return Check(
            self._said(parts.get("run"), "check: run"), self._said(parts.get("see"), "check: see")
        )

    def _example(self, given: object) -> Example:
        parts = self._mapping(given, "examples", {"service", "line"})
        return Example(
            self._said(parts.get("service"), "examples: service"),
            self._said(parts.get("line"), "examples: line"),
        )

    def _releases(self) -> tuple[str, str]:
        if "releases" not in self._given:
            return ("", "")
        parts = self._mapping(self._given["releases"], "releases", {"first", "last"})
        first, last = (
            self._said(parts[key], f"releases: {key}").lower() if key in parts else ""
            for key in ("first", "last")
        )
        return first, last

    def _mapping(self, given: object, what: str, keys: set[str] | None = None) -> Mapping[str, Any]:
        if not isinstance(given, dict):
            raise self._bad(f"{what} must be a mapping, not {given!r}")
        if keys is not None and (strange := sorted(map(str, set(given) - keys))):
            raise self._bad(f"{what}: {', '.join(strange)} not known")
        return given

    def _list(self, key: str, *, empty: bool = False) -> list[object]:
        given = self._given.get(key, [])
        if not isinstance(given, list) or not (given or empty):
            raise self._bad(f"{key} must be a list{'' if empty else ' that is not empty'}")
        return given

    def _texts(self, key: str, *, empty: bool = False) -> tuple[str, ...]:
        return tuple(self._said(one, key) for one in self._list(key, empty=empty))

    def _text(self, key: str) -> str:
        return self._said(self._given.get(key), key)

    def _said(self, given: object, what: str) -> str:
        if not isinstance(given, str) or not given.strip():
            raise self._bad(f"{what} must be a text that is not empty, not {given!r}")
        return given.strip()

    def _bad(self, why: str) -> BadKnowledge:
        return BadKnowledge(f"{self._where}: {why}")
