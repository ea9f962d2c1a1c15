"""What can be found: OpenStack's services and what they stand on, as data in `catalogue.json`.

A service is known by the programs it runs as, by the uwsgi and mod_wsgi applications that it is,
and, where a program serves several, by its arguments (`argv` must match, `not` must not). What the
file does not say follows from the service's name: the program, the uwsgi file and the unit are
called like it, the container has `_` for `-`, the log file is `NAME.log` in the project's folder.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from typing import Any, Mapping, Pattern

_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class Kind:
    """One service as the catalogue knows it."""

    name: str
    project: str
    #: OpenStack's own, not what it stands on.
    openstack: bool
    #: What it says about its host: control, compute, network, storage, database, …
    role: str
    programs: tuple[str, ...]
    ini: tuple[str, ...]
    wsgi: tuple[str, ...]
    modules: tuple[str, ...]
    argv: Pattern[str] | None
    unless: Pattern[str] | None
    units: tuple[str, ...]
    containers: tuple[str, ...]
    #: File names in the project's log folder, or whole paths; shell patterns allowed.
    logs: tuple[str, ...]
    #: TCP ports it listens on unless told otherwise.
    ports: tuple[int, ...]
    #: How a port is asked whether it answers: http, redis, memcached, or "" for not at all.
    probe: str

    def suits(self, line: str) -> bool:
        """Whether the arguments are those of this service and not of another one."""
        if self.unless is not None and self.unless.search(line):
            return False
        return self.argv is None or self.argv.search(line) is not None


@dataclasses.dataclass(frozen=True)
class Project:
    """An OpenStack project, and by which packages its version is known."""

    name: str
    packages: tuple[str, ...]
    distributions: tuple[str, ...]


class Catalogue:
    """All kinds, and where to look one up."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.kinds: dict[str, Kind] = {}
        self.projects: dict[str, Project] = {}
        for group in ("openstack", "base"):
            for project, said in data[group].items():
                if group == "openstack":
                    self.projects[project] = _project(project, said)
                for name, facts in said["services"].items():
                    self.kinds[name] = _kind(name, project, group == "openstack", facts)
        self.programs = self._index("programs")
        self.ini = self._index("ini")
        self.wsgi = self._index("wsgi")
        self.modules = self._index("modules")
        self.containers = self._index("containers")

    def _index(self, field: str) -> dict[str, list[Kind]]:
        found: dict[str, list[Kind]] = {}
        for kind in self.kinds.values():
            for word in getattr(kind, field):
                found.setdefault(word, []).append(kind)
        for kinds in found.values():
            # The one that asks for certain arguments is tried before the one that takes any.
            kinds.sort(key=lambda kind: kind.argv is None)
        return found


@functools.lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The catalogue that this agent ships."""
    with open(os.path.join(_HERE, "catalogue.json"), encoding="utf-8") as file:
        return Catalogue(json.load(file))


def _kind(name: str, project: str, openstack: bool, facts: Mapping[str, Any]) -> Kind:
    def words(field: str, *otherwise: str) -> tuple[str, ...]:
        return tuple(facts.get(field, otherwise))

    stem = name[len(project) + 1 :] if name.startswith(project + "-") else name
    units = (name, f"openstack-{name}") if openstack else (name,)
    return Kind(
        name=name,
        project=project,
        openstack=openstack,
        role=facts.get("role", ""),
        programs=words("programs", name),
        ini=words("ini", name) if openstack else (),
        wsgi=_wsgi(name, words("wsgi", name)) if openstack else (),
        modules=words("modules"),
        argv=re.compile(facts["argv"]) if "argv" in facts else None,
        unless=re.compile(facts["not"]) if "not" in facts else None,
        units=tuple(dict.fromkeys((*units, *facts.get("units", ())))),
        containers=words("containers", name.replace("-", "_")),
        logs=words("logs", f"{name}.log", f"{stem}.log"),
        ports=tuple(facts.get("ports", ())),
        probe=facts.get("probe", ""),
    )


def _wsgi(name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """How a group of mod_wsgi may be called: RDO's end in _wsgi."""
    plain = name.replace("-", "_")
    return tuple(dict.fromkeys((*words, plain, f"{plain}_wsgi")))


def _project(name: str, said: Mapping[str, Any]) -> Project:
    packages = (
        f"{name}-common", f"openstack-{name}-common", f"python3-{name}", f"python-{name}",
    )  # fmt: skip
    return Project(
        name=name,
        packages=tuple(said.get("packages", packages)),
        distributions=tuple(said.get("distributions", (name,))),
    )
