"""What can be read of a host besides its processes: files, systemd's units, containers.

Everything goes through one `Host`, which may stand at another root than `/`.
"""

from __future__ import annotations

import dataclasses
import glob
import http.client
import json
import os
import re
import socket
import time
from typing import Any, Iterator

from agent_client.bounded import ends_within

_UNIT_FOLDERS = (
    "/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator",
    "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
)  # fmt: skip
#: Both speak Docker's protocol (Docker Engine API, `GET /containers/json`).
_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock")
_SOCKET_TIMEOUT, _WITHIN = 1.0, 3.0
#: An engine that hung once is left alone for so many seconds: others wait for our answers too.
_LEFT_ALONE = 1800.0
_LONGEST_ANSWER = 4 * 1024 * 1024
_CONTAINER_ID = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope|/|$)")
_UNIT = re.compile(r"([^/]+\.service)(?:/|$)")
_NESTED = re.compile(r"/user\.slice/|/user@|/lxc[./]|\.scope/|/payload/")
_POD_LOG = re.compile(
    r"(?P<pod>[^_]+)_(?P<namespace>[^_]+)_(?P<name>.+)-(?P<id>[0-9a-f]{64})\.log$"
)


@dataclasses.dataclass(frozen=True)
class Container:
    """A container as its engine, or the kubelet's folder of logs, names it."""

    id: str
    name: str
    image: str = ""
    running: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    #: Its log on the host, where it can be followed.
    log: str = ""

    def label(self, name: str) -> str:
        """The value of a label, empty without it."""
        return dict(self.labels).get(name, "")


class Host:
    """Files, units and containers of a host. Unreadable is the same as absent, and is noted."""

    def __init__(self, root: str = "/", proc: str = "") -> None:
        self.root = root.rstrip("/")
        self.proc = proc or f"{self.root}/proc"
        self._known: dict[str, Container] = {}
        self._not_before: dict[str, float] = {}
        #: What could not be looked at, and why; one line each.
        self.blind: dict[str, str] = {}

    # Files

    def path(self, path: str) -> str:
        """Where a path of this host really is."""
        return self.root + path

    def exists(self, path: str) -> bool:
        """Whether there is such a file, folder or link."""
        return os.path.lexists(self.path(path))

    def read(self, path: str, limit: int = 1024 * 1024) -> str:
        """The text of a file, empty where it cannot be read."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read(limit)
        except OSError:
            return ""

    def names(self, folder: str) -> list[str]:
        """What a folder holds, nothing where it cannot be listed."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def glob(self, pattern: str) -> list[str]:
        """The paths that a shell pattern finds, as this host names them."""
        if not glob.has_magic(pattern):
            return [pattern] if os.path.exists(self.path(pattern)) else []
        found = glob.glob(glob.escape(self.root) + pattern)
        return sorted(path[len(self.root) :] for path in found)

    # Units

    def units(self) -> dict[str, str]:
        """Every service unit by its name: `enabled`, `disabled` (or static) or `masked`.

        Read from the folders of unit files, so no bus is asked.
        """
        found: dict[str, str] = {}
        for folder in _UNIT_FOLDERS:
            for name in self.names(folder):
                if name.endswith(".service") and name not in found:
                    found[name] = "masked" if self._is_masked(f"{folder}/{name}") else "disabled"
        for folder in _UNIT_FOLDERS[:3]:
            for entry in self.names(folder):
                if entry.endswith((".wants", ".requires")):
                    for name in self.names(f"{folder}/{entry}"):
                        if name.endswith(".service") and found.get(name) != "masked":
                            found[name] = "enabled"
        return found

    def _is_masked(self, path: str) -> bool:
        try:
            return os.readlink(self.path(path)) == "/dev/null"
        except OSError:
            return False

    # Containers

    def containers(self) -> dict[str, Container]:
        """Every container by its id, stopped ones too; none where no engine may be asked."""
        found: dict[str, Container] = {}
        asked = False
        for path in dict.fromkeys(os.path.realpath(self.path(path)) for path in _SOCKETS):
            if not os.path.exists(path):
                continue
            if time.monotonic() < self._not_before.get(path, 0.0):
                asked = self.sees_containers
                found.update(self._known)
                continue
            try:
                for container in _containers(_ask(path, "/containers/json?all=1")):
                    found[container.id] = container
                asked = True
                self.blind.pop(path, None)
            except PermissionError:
                self.blind[path] = (
                    f"{path} may not be read: containers are known by their processes only; "
                    "add the agent's user to the group that owns it to see names and images"
                )
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.blind[path] = f"{path} does not answer: {error}"
                if isinstance(error, socket.timeout):
                    self._not_before[path] = time.monotonic() + _LEFT_ALONE
                    found.update(self._known)
        for container in self._pod_containers():
            found.setdefault(container.id, container)
        self.sees_containers = asked or bool(found)
        self._known = found
        return found

    #: Whether the last look at containers found somebody who knows them.
    sees_containers = False

    def _pod_containers(self) -> Iterator[Container]:
        """Those that a kubelet runs: the names of their logs say what they are."""
        for name in self.names("/var/log/containers"):
            match = _POD_LOG.match(name)
            if match:
                yield Container(
                    match.group("id"),
                    match.group("name"),
                    log=f"/var/log/containers/{name}",
                    labels=(("pod", match.group("pod")), ("namespace", match.group("namespace"))),
                )


def container_id(cgroup: str) -> str:
    """The container that a control group belongs to: Docker's, Podman's, containerd's, CRI-O's."""
    found = _CONTAINER_ID.findall(cgroup)
    return found[-1] if found else ""


def unit_of(cgroup: str) -> str:
    """The systemd service of this host that a control group belongs to.

    That of a user's session, or of a container with a systemd of its own, is none.
    """
    if _NESTED.search(cgroup):
        return ""
    found = _UNIT.findall(cgroup)
    return found[-1].replace("\\x2d", "-") if found else ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SOCKET_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SOCKET_TIMEOUT)
        self.sock.connect(self._path)


def _ask(path: str, what: str) -> Any:
    """The JSON that an engine answers on its socket. Raises OSError, HTTPException, ValueError."""
    connection = _UnixConnection(path)
    ends_within(connection, _WITHIN)
    try:
        connection.request("GET", what)
        response = connection.getresponse()
        body = response.read(_LONGEST_ANSWER)
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"HTTP {response.status}")
    if len(body) == _LONGEST_ANSWER:
        raise ValueError(f"its answer is longer than {_LONGEST_ANSWER} bytes")
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("its answer is nested too deeply") from None


def _containers(said: Any) -> Iterator[Container]:
    """Those of an answer. Raises ValueError where it is no engine's."""
    try:
        for one in said:
            names = one.get("Names") or [""]
            labels = one.get("Labels") or {}
            yield Container(
                str(one["Id"]),
                str(names[0]).lstrip("/"),
                str(one.get("Image", "")),
                one.get("State", "running") in ("running", "restarting", "paused"),
                tuple(sorted((str(key), str(value)) for key, value in labels.items())),
            )
    except (AttributeError, KeyError, TypeError):
        raise ValueError("its answer is no list of containers") from None
