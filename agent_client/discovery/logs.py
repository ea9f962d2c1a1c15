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
    #: Whose command line it is: any user may run something under a service's name.
    log_owner: int | None = None


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

    def add(pattern: str, service: str, kind: str, owner: int | None = None) -> None:
        level = levels.get(service) or levels.get("") or "warning"
        source = LogSource(pattern, service, level, kind=kind, owner=owner)
        found.setdefault((kind, pattern), source)

    for writer in writers:
        name = writer.name
        files = _files(host, writer)
        for pattern, owner in files.items():
            add(pattern, name, "file", owner)
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


def _files(host: Host, writer: Writer) -> dict[str, int | None]:
    """Patterns of a service's files, each with the user whose they must be; None for anybody's."""
    candidates = []
    for pattern in writer.kind.logs:
        if pattern.startswith("/"):
            candidates += _on_host(pattern)
        else:
            candidates += [f"{folder}/{pattern}" for folder in _folders(writer.kind.project)]
    found: dict[str, tuple[str, int | None]] = {}
    for pattern in candidates:
        for path in host.glob(pattern):
            # Two names of one file are one log: Kolla links its folder into /var/log.
            found.setdefault(os.path.realpath(host.path(path)), (pattern, None))
    for path in _on_host(writer.log_file) if writer.log_file else ():
        if host.exists(path) and _may_name(host, writer, path):
            owner = writer.log_owner or None
            real = os.path.realpath(host.path(path))
            found.setdefault(real, (glob.escape(path), owner))
    patterns = dict(found.values())
    return {pattern: patterns[pattern] for pattern in sorted(patterns)}


def _may_name(host: Host, writer: Writer, path: str) -> bool:
    """Whether a command line may say that a file is a log: root's may, others' of their own files.

    The agent reads what others may not, and a program can be called anything by anybody.
    """
    if writer.log_owner == 0:
        return True
    place = f"the log of {writer.name}"
    try:
        owner = os.stat(host.path(path)).st_uid
    except OSError:
        return False
    if writer.log_owner == owner:
        host.blind.pop(place, None)
        return True
    host.blind[place] = (
        f"{path} is not read as {place}: user {writer.log_owner} runs that, and the file is of"
        f" user {owner}; name it in the agent's configuration if it is right"
    )
    return False


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
