"""What has run on this host, kept in the state directory: what ran once and is gone is down."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import Any

from agent_client.private_files import write_private

log = logging.getLogger("sentinella.discovery")

_FILE = "discovery.json"


@dataclasses.dataclass
class Seen:
    """A service that has run here. Times in Unix seconds."""

    name: str
    project: str
    found_at: float
    #: What the catalogue calls it; empty for what only the configuration knows.
    kind: str = ""
    down_since: float | None = None
    #: How often its main process was another one than before, since it was found.
    restarts: int = 0
    #: (pid, start in seconds since boot) of its main processes.
    mains: list[list[float]] = dataclasses.field(default_factory=list)
    #: The boot of the host in which it was last up.
    boot_id: str = ""
    unit: str = ""
    container: str = ""
    container_id: str = ""
    #: `unit:NAME`, `file:PATH`, `container:NAME`, `project:NAME`: it is forgotten, once it is
    #: down, when none of these is there any more.
    traces: list[str] = dataclasses.field(default_factory=list)
    #: The log file that its command line names.
    log_file: str = ""
    #: The user whose command line that is; None where it is not known.
    log_owner: int | None = None
    #: Full looks in a row that found no trace of it.
    traceless: int = 0


class Memory:
    """The services that have run here, in one file. A damaged file counts as none."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, _FILE)
        self._stamp: tuple[int, int] | None = None
        self._written = ""
        self.services: dict[str, Seen] = {}
        #: The boot of the host at the last look.
        self.boot_id = ""
        self.release = ""
        self.is_new = True
        self.reload()

    def reload(self) -> bool:
        """Read the file if somebody else wrote it (`sentinella discover --forget`)."""
        try:
            status = os.stat(self._path)
        except OSError:
            return False
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            with open(self._path, encoding="utf-8") as file:
                said = json.load(file)
            self.services = {name: Seen(**_known(one)) for name, one in said["services"].items()}
            self.boot_id, self.release = str(said["boot_id"]), str(said["release"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: %s; what has run here is learnt anew", self._path, error)
            return False
        self.is_new = False
        return True

    def forget(self, name: str) -> bool:
        """No longer expect a service; False if it was not known."""
        return self.services.pop(name, None) is not None

    def save(self) -> None:
        """Write the file if anything changed. Raises OSError."""
        # Each cycle asks whether anything changed: without indentation this is a millisecond less.
        text = json.dumps(
            {
                "boot_id": self.boot_id,
                "release": self.release,
                "services": {name: vars(one) for name, one in sorted(self.services.items())},
            }
        )
        if text == self._written:
            return
        write_private(self._path, text)
        status = os.stat(self._path)
        self._stamp = (status.st_mtime_ns, status.st_ino)
        self._written = text
        self.is_new = False


def _known(said: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of what another one may have written."""
    fields = {field.name for field in dataclasses.fields(Seen)}
    return {name: value for name, value in said.items() if name in fields}
