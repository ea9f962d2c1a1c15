"""Which OpenStack release a host runs, by the versions of the packages found on it.

A project's version names its release: `releases.json` holds the first version of each project in
each release since Liberty. Versions are read from what Python installed (dist-info, egg-info), from
the databases of dpkg and rpm, and from the labels and tags of containers' images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import json
import os
import re
import sqlite3
import struct
from typing import Iterable, Iterator, Mapping, Sequence

from agent_client.discovery.catalogue import Catalogue
from agent_client.discovery.host import Container, Host

_HERE = os.path.dirname(os.path.abspath(__file__))
_SITE_PACKAGES = (
    "/usr/lib/python3/dist-packages", "/usr/lib/python2.7/dist-packages",
    "/usr/lib/python2.7/site-packages", "/usr/lib/python3*/site-packages",
    "/usr/local/lib/python3*/dist-packages", "/usr/local/lib/python3*/site-packages",
    "/var/lib/kolla/venv/lib/python3*/site-packages",
    "/opt/stack/data/venv/lib/python3*/site-packages",
    "/opt/openstack/lib/python3*/site-packages", "/var/lib/openstack/lib/python3*/site-packages",
    "/openstack/venvs/*/lib/python*/site-packages",
)  # fmt: skip
_INSTALLED = re.compile(
    r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>\d[^-]*)(-py[\d.]+)?\.(dist|egg)-info$"
)
_DPKG_STATUS = "/var/lib/dpkg/status"
_RPM_DATABASES = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
_RPM_VERSION = 1001  # rpmtag.h: RPMTAG_VERSION
#: Red Hat OpenStack Platform counts on its own (access.redhat.com, "life cycle").
_RED_HAT = {"10": "newton", "13": "queens", "16": "train", "17": "wallaby", "18": "antelope"}


@dataclasses.dataclass(frozen=True)
class Release:
    """One release, and the first version of each project in it."""

    name: str
    series: str
    first: Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Version:
    """The version of one project on this host, and where it was read.

    An image's tag often names the release and no version.
    """

    project: str
    version: str
    evidence: str
    tagged: str = ""

    @property
    def release(self) -> str:
        """The release that it speaks for, empty where the table does not say."""
        return self.tagged or release_of(self.project, self.version)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the versions say; `doubts` is empty where they all say the same."""

    release: str = ""
    version: str = ""
    projects: tuple[tuple[str, str], ...] = ()
    evidence: str = ""
    doubts: tuple[str, ...] = ()


@functools.lru_cache(maxsize=1)
def releases() -> tuple[Release, ...]:
    """All known releases, oldest first."""
    with open(os.path.join(_HERE, "releases.json"), encoding="utf-8") as file:
        said = json.load(file)["releases"]
    return tuple(
        Release(
            one["name"],
            one["series"],
            {project: _numbers(first) for project, first in one["first"].items()},
        )
        for one in said
    )


def release_of(project: str, version: str) -> str:
    """The release that a project's version belongs to, empty where the table does not say."""
    numbers = _numbers(version)
    if not numbers:
        return ""
    year = re.match(r"201[0-5]\.[12]", version)
    if year:
        return {"2015.1": "Kilo", "2014.2": "Juno", "2014.1": "Icehouse"}.get(year.group(0), "")
    known = [(one.first[project], one.name) for one in releases() if project in one.first]
    reached = [entry for entry in known if entry[0] <= numbers]
    if not reached:
        return ""
    first, name = reached[-1]
    if len(known) > 1 and len(reached) == len(known) and _is_beyond(numbers, first, known[-2][0]):
        return ""
    return name


def _is_beyond(numbers: Sequence[int], newest: Sequence[int], before: Sequence[int]) -> bool:
    """Whether a version is newer than the newest known release, by the step of the last two."""
    for at, (new, old) in enumerate(zip(newest, before)):
        if new != old:
            return new - old == 1 and tuple(numbers[: at + 1]) > tuple(newest[: at + 1])
    return False


def judge(versions: Iterable[Version]) -> Verdict:
    """The release that most projects speak for, nova's word first among equals."""
    by_project: dict[str, Version] = {}
    doubts: list[str] = []
    for one in versions:
        known = by_project.setdefault(one.project, one)
        if known.release != one.release:
            doubts.append(f"{_said(known)} and {_said(one)} are both here")
    votes: dict[str, int] = {}
    for one in by_project.values():
        if one.release:
            votes[one.release] = votes.get(one.release, 0) + (2 if one.project == "nova" else 1)
    winner = max(votes, key=lambda release: (votes[release], _rank(release)), default="")
    for name, one in sorted(by_project.items()):
        if not one.release and name != "gnocchi":  # which is released on its own
            doubts.append(f"{_said(one)} is in no known release")
        elif one.release and one.release != winner:
            doubts.append(f"{_said(one)} is of {one.release}")
    speaking = [one for one in by_project.values() if one.release == winner]
    speaking.sort(key=lambda one: (one.project != "nova", one.project))
    real = {
        name: one.version
        for name, one in sorted(by_project.items())
        if one.version and name != "kolla"
    }
    return Verdict(
        winner,
        real.get("nova", ""),
        tuple(real.items()),
        "; ".join(one.evidence for one in speaking[:3]) if winner else "",
        tuple(doubts),
    )


def _said(one: Version) -> str:
    return f"{one.project} {one.version or one.tagged} ({one.evidence})"


def versions(
    host: Host,
    catalogue: Catalogue,
    containers: Iterable[Container],
    programs: Iterable[str],
    roots: Iterable[str] = (),
) -> list[Version]:
    """Every version that this host tells. `programs` are the paths of running services.

    The interpreter's own folder comes first: it is what runs. `roots` are those of services that
    see other files than we do, in containers and the like.
    """
    found = list(_of_python(host, catalogue, programs))
    for root in roots:
        found += _of_python(Host(root, host.proc), catalogue, programs, root)
    found += _of_dpkg(host, catalogue)
    found += _of_rpm(host, catalogue)
    found += _of_images(containers, catalogue)
    known: set[tuple[str, str]] = set()
    unique = []
    for one in found:
        key = (one.project, one.release or one.version)
        if key not in known:
            known.add(key)
            unique.append(one)
    return unique


def of_program(output: str) -> str:
    """The version in what `nova-manage --version` prints; empty if there is none."""
    match = re.search(r"(?m)^(?:[\w-]+ )?(\d+\.\d+(?:\.\d+)*\S*)$", output.strip())
    return match.group(1) if match else ""


def _of_python(
    host: Host, catalogue: Catalogue, programs: Iterable[str], within: str = ""
) -> Iterator[Version]:
    distributions = {
        distribution.replace("-", "_").lower(): project.name
        for project in catalogue.projects.values()
        for distribution in project.distributions
    }
    places = []
    for program in programs:
        folder = os.path.dirname(program)
        if folder.endswith("/bin") and folder not in ("/usr/bin", "/bin", "/usr/local/bin"):
            places.append(f"{glob.escape(folder[:-4])}/lib/python*/site-packages")
    for pattern in dict.fromkeys((*places, *_SITE_PACKAGES)):
        for folder in host.glob(pattern):
            for name in host.names(folder):
                match = _INSTALLED.match(name)
                if match is None:
                    continue
                project = distributions.get(match.group("name").replace("-", "_").lower())
                if project:
                    yield Version(project, match.group("version"), f"{within}{folder}/{name}")


def _of_dpkg(host: Host, catalogue: Catalogue) -> Iterator[Version]:
    wanted = _packages(catalogue)
    package, installed = "", False
    try:
        with open(host.path(_DPKG_STATUS), encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Package: "):
                    package, installed = line[9:].strip(), False
                elif package in wanted and line.startswith("Status: "):
                    installed = line.rstrip().endswith(" installed")
                elif package in wanted and installed and line.startswith("Version: "):
                    yield Version(wanted[package], _upstream(line[9:]), f"dpkg {package}")
    except FileNotFoundError:
        return  # no Debian
    except OSError as error:
        host.blind[_DPKG_STATUS] = f"{_DPKG_STATUS}: {error.strerror}"


def _of_rpm(host: Host, catalogue: Catalogue) -> Iterator[Version]:
    """From rpm's SQLite database: an index of names, and the packages' headers as blobs."""
    wanted = _packages(catalogue)
    for path in _RPM_DATABASES:
        if not os.path.exists(host.path(path)):
            continue
        try:
            rows = _rpm_rows(host.path(path), sorted(wanted))
        except sqlite3.Error as error:
            host.blind[path] = f"{path}: {error}"
            continue
        for name, blob in rows:
            version = _rpm_text(blob, _RPM_VERSION)
            if version:
                yield Version(wanted[name], version, f"rpm {name}")
        return


def _rpm_rows(path: str, names: list[str]) -> list[tuple[str, bytes]]:
    """Names and headers; without those in a write-ahead log that may not be opened."""
    marks = ",".join("?" * len(names))
    query = (
        "SELECT Name.key, Packages.blob FROM Name JOIN Packages USING (hnum) "  # noqa: S608
        f"WHERE Name.key IN ({marks})"  # nothing but marks
    )
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?{mode}", uri=True)) as database:
                return database.execute(query, names).fetchall()
        except sqlite3.OperationalError:
            if mode.endswith("1"):
                raise
    return []


def _rpm_text(blob: bytes, tag: int) -> str:
    """A string of a package's header (rpm's "Package format": index entries, then the data)."""
    try:
        count, size = struct.unpack_from(">II", blob, 0)
        data = 8 + 16 * count
        for at in range(count):
            found, _, offset, _ = struct.unpack_from(">IIII", blob, 8 + 16 * at)
            if found == tag and offset < size:
                end = blob.index(b"\0", data + offset)
                return blob[data + offset : end].decode("utf-8", "replace")
    except (struct.error, ValueError):
        return ""
    return ""


def _of_images(containers: Iterable[Container], catalogue: Catalogue) -> Iterator[Version]:
    """What the images of OpenStack's services say, by label or by tag."""
    for container in containers:
        project = _project_of(container, catalogue)
        if not project:
            continue
        evidence = f"container {container.name}, image {container.image}"
        kolla = container.label("kolla_version")
        if re.match(r"\d+\.\d+\.\d+$", kolla):  # built from a commit, it is that instead
            yield Version("kolla", kolla, f"{evidence}, label kolla_version {kolla}")
        tagged = _release_of_image(container.image)
        if tagged:
            yield Version(project, "", evidence, tagged)


def _project_of(container: Container, catalogue: Catalogue) -> str:
    kinds = catalogue.containers.get(container.name.replace("-", "_"), ())
    project = next((kind.project for kind in kinds if kind.openstack), "")
    if project:
        return project
    words = re.split(r"[^a-z]+", container.image.rpartition("/")[2].partition(":")[0])
    return next((word for word in words if word in catalogue.projects), "")


def _release_of_image(image: str) -> str:
    tag = image.rpartition("/")[2].partition(":")[2]
    red_hat = re.match(r"v?(\d+)(\.|$)", tag) if "rhosp" in image else None
    words = set(re.split(r"[^a-z]+", f"{tag} {image}".lower()))
    if red_hat:
        words = {_RED_HAT.get(red_hat.group(1), "")}
    year = re.search(r"(?<![\d.])20\d\d\.[12](?!\d)", tag)
    for one in releases():
        if one.series in words or (year and one.name.startswith(year.group(0))):
            return one.name
    return ""


def _packages(catalogue: Catalogue) -> dict[str, str]:
    return {
        package: project.name
        for project in catalogue.projects.values()
        for package in project.packages
    }


def _upstream(version: str) -> str:
    """The upstream part of a Debian version: without the epoch and the package's own revision."""
    return re.sub(r"[~+-].*$", "", version.strip().partition(":")[2] or version.strip())


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match.group(0).split(".")] if match else []
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers[:3])


def _rank(release: str) -> int:
    return next((at for at, one in enumerate(releases()) if one.name == release), -1)
