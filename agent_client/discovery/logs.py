"""Where the services that were found write their logs."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from typing import Iterable, Mapping, Sequence

from agent_client.config import LogSource
from agent_client.discovery.catalogue import Kind
from agent_client.discovery.host import Container, Host

#: Where Kolla's containers keep /var/log/kolla on the host.
_KOLLA = (
    "/var/log/kolla",
    "/var/lib/docker/volumes/kolla_logs/_data",
    "/var/lib/containers/storage/volumes/kolla_logs/_data",
)
#: A command line is the word of whoever started it: what looks like no log is not read for it.
_LOG_PATH = re.compile(r"/logs?/|\.log\Z")
_LOG_OPTION = re.compile(r"--(?:log-file|logto|log_file|logto2)(?:=|$)")


@dataclasses.dataclass(frozen=True)
class Writer:
    """A service as far as its logs go."""

    name: str
    kind: Kind
    unit: str = ""
    container: Container | None = None
    #: The log file that its command line names.
    log_file: str = ""


def log_file_of(argv: Sequence[str]) -> str:
    """The log file that a command line names, empty without one."""
    words = [word.strip("()[]'\"") for part in argv for word in part.split()]
    for at, word in enumerate(words):
        if _LOG_OPTION.match(word):
            value = word.partition("=")[2] or (words[at + 1] if at + 1 < len(words) else "")
            value = os.path.normpath(value)
            if value.startswith("/") and _LOG_PATH.search(value):
                return value
    return ""


def sources(
    host: Host, writers: Iterable[Writer], levels: Mapping[str, str]
) -> tuple[LogSource, ...]:
    """What to follow: each service's files, else its container's log or its unit's journal.

    Behind them, for each project, whatever else lies in its folder of logs. `levels` is the least
    level that is sent, by service; "" is for all others.
    """
    found: dict[tuple[str, str], LogSource] = {}
    folders: dict[str, str] = {}

    def add(pattern: str, service: str, kind: str) -> None:
        level = levels.get(service) or levels.get("") or "warning"
        found.setdefault((kind, pattern), LogSource(pattern, service, level, kind=kind))

    for writer in writers:
        name = writer.name
        files = _files(host, writer)
        for path in files:
            add(path, name, "file")
        if writer.kind.openstack:
            for folder in _folders(writer.kind.project):
                if host.names(folder):
                    folders[folder] = writer.kind.project
        if files:
            continue
        if writer.container is not None:
            add(writer.container.log or writer.container.id, name, "container")
        elif writer.unit:
            add(writer.unit, name, "journal")
    for folder, project in sorted(folders.items()):
        add(f"{folder}/*.log", project, "file")
    return tuple(found.values())


def _files(host: Host, writer: Writer) -> list[str]:
    candidates: list[str] = []
    if writer.log_file:
        candidates += map(glob.escape, _on_host(writer.log_file))
    for pattern in writer.kind.logs:
        if pattern.startswith("/"):
            candidates += _on_host(pattern)
        else:
            candidates += [f"{folder}/{pattern}" for folder in _folders(writer.kind.project)]
    found: dict[str, str] = {}
    for pattern in candidates:
        for path in host.glob(pattern):
            # Two names of one file are one log: Kolla links its folder into /var/log.
            real = os.path.realpath(host.path(path))
            found.setdefault(real, pattern)
    return sorted(set(found.values()))


def _folders(project: str) -> list[str]:
    # RDO's containers keep theirs on the host, below /var/log/containers.
    return [
        f"/var/log/{project}",
        f"/var/log/containers/{project}",
        *(f"{folder}/{project}" for folder in _KOLLA),
    ]


def _on_host(path: str) -> list[str]:
    """A path as a service names it; inside Kolla's containers it is a volume of the host."""
    rest = path[len(_KOLLA[0]) :]
    if path.startswith(_KOLLA[0] + "/"):
        return [folder + rest for folder in _KOLLA]
    return [path]
