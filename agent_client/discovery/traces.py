"""What a service leaves on a host besides its processes: with it removed, nobody expects it."""

from __future__ import annotations

from typing import Collection, Mapping, Sequence

from agent_client.discovery.host import Container, Host
from agent_client.discovery.memory import Seen


class Installed:
    """What is installed on a host at one look at everything."""

    def __init__(
        self,
        host: Host,
        units: Mapping[str, str],
        containers: Mapping[str, Container],
        projects: Collection[str],
    ) -> None:
        self._host = host
        self._units = units
        self._containers = containers
        self._projects = projects

    def traces(self, seen: Seen, argv: Sequence[str], project: str) -> list[str]:
        """`unit:NAME`, `container:NAME`, `file:PATH` or `project:NAME`: by what it may be found.

        A program inside a container is no file of the host. A configuration outlives the removal
        of its package, so it counts only where there is nothing else.
        """
        unit = seen.unit if seen.unit in self._units else seen.unit.partition("@")[0] + "@.service"
        found = [f"unit:{unit}"] if unit in self._units else []
        if seen.container and self._host.sees_containers:
            found.append(f"container:{seen.container}")
        if not seen.container_id:
            words = [word.strip("()[]") for part in argv for word in part.split()]
            paths = [word for word in words if word.startswith("/") and self._host.exists(word)]
            found += [f"file:{path}" for path in paths[:4] if _is_program(path)]
            if not found:
                found += [f"file:{path}" for path in paths[:4] if path.endswith(".ini")]
        if not found and project in self._projects:
            found.append(f"project:{project}")
        return found or seen.traces

    def has(self, seen: Seen) -> bool:
        """Whether any of its traces is still there."""
        names = {one.name for one in self._containers.values()}
        for trace in seen.traces:
            what, _, name = trace.partition(":")
            if (
                (what == "unit" and name in self._units)
                or (what == "file" and self._host.exists(name))
                or (what == "container" and (name in names or not self._host.sees_containers))
                or (what == "project" and name in self._projects)
            ):
                return True
        return False


def _is_program(path: str) -> bool:
    """Whether a path is the service's own program: Python and uwsgi stay when it is removed."""
    folder, _, name = path.rpartition("/")
    return folder.endswith(("/bin", "/sbin")) and not name.startswith(("python", "pypy", "uwsgi"))
