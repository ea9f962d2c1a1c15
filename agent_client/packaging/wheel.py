"""The agent as a wheel of pure Python, made from its sources without any tool.

Format: PyPA, "Binary distribution format" (PEP 427) and "Core metadata" (PEP 566).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import zipfile
from pathlib import Path

from agent_client.packaging.project import project
from agent_client.wire import VERSION

AGENT = Path(__file__).resolve().parents[1]
_TIME = (1980, 1, 1, 0, 0, 0)  # the same sources always make the same file
_SUFFIXES = (".py", ".yaml", ".json", ".toml")


class Wheel:
    """A file that pip installs, and its SHA-256 in hex."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()


def sources() -> dict[str, bytes]:
    """What runs on a host: path below the package `agent_client` to content, sorted."""
    found = {}
    for path in sorted(AGENT.rglob("*")):
        inside = path.relative_to(AGENT)
        if path.suffix not in _SUFFIXES or inside.parts[0] in ("packaging", "pyproject.toml"):
            continue
        if "__pycache__" not in inside.parts:
            found[inside.as_posix()] = path.read_bytes()
    return found


@functools.lru_cache(maxsize=None)
def wheel() -> Wheel:
    """Make it. Raises OSError if the sources can't be read."""
    told = project()
    name = told.name.replace("-", "_")
    info = f"{name}-{VERSION}.dist-info"
    files = {f"agent_client/{path}": content for path, content in sources().items()}
    files[f"{info}/METADATA"] = told.metadata().encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: sentinella\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    scripts = "".join(f"{key} = {value}\n" for key, value in told.scripts.items())
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    record = "".join(f"{path},{_digest(body)},{len(body)}\n" for path, body in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in files.items():
            archive.writestr(zipfile.ZipInfo(path, _TIME), body, zipfile.ZIP_DEFLATED)
    return Wheel(f"{name}-{VERSION}-py3-none-any.whl", content.getvalue())


def _digest(body: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"
