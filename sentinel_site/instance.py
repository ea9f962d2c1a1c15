"""Where a running instance says what it is, for a second shell to find it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentinel_site.embedded.process import start_time, write_private


def environment(state_dir: Path) -> dict[str, str]:
    """What `manage.py` needs to know to work on the running instance; empty if there is none."""
    found = running(state_dir)
    return {} if found is None else dict(found["environment"])


def running(state_dir: Path) -> dict[str, Any] | None:
    """What the running instance wrote of itself; None if it has gone, however it went."""
    found = read(state_dir)
    if found is None or start_time(found["pid"]) != found["started"]:
        return None
    return found


def read(state_dir: Path) -> dict[str, Any] | None:
    """The file as it stands, that of a killed instance too."""
    try:
        found: dict[str, Any] = json.loads(_path(state_dir).read_text())
    except (FileNotFoundError, PermissionError):  # another user's instance is none of ours
        return None
    return found


def write(state_dir: Path, description: dict[str, Any]) -> None:
    write_private(_path(state_dir), json.dumps(description, indent=2))


def remove(state_dir: Path) -> None:
    _path(state_dir).unlink(missing_ok=True)


def _path(state_dir: Path) -> Path:
    return state_dir / "instance.json"
