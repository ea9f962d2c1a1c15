"""What `agent_client/pyproject.toml` says of the agent."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Mapping

from agent_client.wire import VERSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FILE = Path(__file__).resolve().parents[1] / "pyproject.toml"


@dataclasses.dataclass(frozen=True)
class Project:
    """Name, what it needs, and the commands it brings."""

    name: str
    summary: str
    requires_python: str
    dependencies: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]
    scripts: Mapping[str, str]

    def metadata(self) -> str:
        """As a distribution's METADATA says it."""
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {self.name}",
            f"Version: {VERSION}",
            f"Summary: {self.summary}",
            "License: Apache-2.0",
            f"Requires-Python: {self.requires_python}",
            *(f"Requires-Dist: {one}" for one in self.dependencies),
        ]
        for extra, wanted in sorted(self.extras.items()):
            lines.append(f"Provides-Extra: {extra}")
            lines.extend(f'Requires-Dist: {one}; extra == "{extra}"' for one in wanted)
        return "\n".join(lines) + "\n"


def project() -> Project:
    """Read it. Raises OSError, or KeyError if the file lacks one of these."""
    told = tomllib.loads(_FILE.read_text(encoding="utf-8"))["project"]
    return Project(
        name=told["name"],
        summary=told["description"],
        requires_python=told["requires-python"],
        dependencies=tuple(told["dependencies"]),
        extras={k: tuple(v) for k, v in told.get("optional-dependencies", {}).items()},
        scripts=told["scripts"],
    )
