"""The one-line install: a shell script and the agent's wheel, both served by this installation.

The wheel is made from the agent's own sources at first use, so what is installed always fits the
server that it will report to. Format: PyPA, "Binary distribution format" (PEP 427).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.template.loader import render_to_string

from agent_client.wire import VERSION
from sentinel_site.kit.tenancy import public_url

AGENT = Path(settings.BASE_DIR) / "agent_client"
_TIME = (1980, 1, 1, 0, 0, 0)  # the same sources always make the same file


@dataclass(frozen=True)
class Wheel:
    """A file that pip installs, and its SHA-256 in hex."""

    name: str
    content: bytes
    sha256: str


def line(token: str) -> str:
    """What to paste on a server, as root; the token in it works once."""
    return f"curl -fsSL {public_url('install')} | sudo sh -s -- {token}"


def script() -> str:
    """The POSIX shell script that the line runs."""
    found = wheel()
    return render_to_string(
        "clouds/install.sh",
        {
            "server": settings.PUBLIC_URL,
            "wheel_url": public_url("install-wheel", found.name),
            "wheel_name": found.name,
            "sha256": found.sha256,
        },
    )


@functools.cache
def wheel() -> Wheel:
    """The agent as a wheel of pure Python."""
    project = tomllib.loads((AGENT / "pyproject.toml").read_text())["project"]
    name = project["name"].replace("-", "_")
    info = f"{name}-{VERSION}.dist-info"
    files = {
        f"agent_client/{path.relative_to(AGENT).as_posix()}": path.read_bytes()
        for path in sorted(AGENT.rglob("*"))
        if path.suffix in (".py", ".yaml", ".json") and "__pycache__" not in path.parts
    }
    requires = "".join(f"Requires-Dist: {one}\n" for one in project["dependencies"])
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {VERSION}\n"
        f"Summary: {project['description']}\nRequires-Python: {project['requires-python']}\n"
        f"{requires}"
    ).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: sentinella\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    scripts = "".join(f"{key} = {value}\n" for key, value in project["scripts"].items())
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    record = "".join(f"{path},{_digest(body)},{len(body)}\n" for path, body in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in files.items():
            archive.writestr(zipfile.ZipInfo(path, _TIME), body, zipfile.ZIP_DEFLATED)
    body = content.getvalue()
    return Wheel(f"{name}-{VERSION}-py3-none-any.whl", body, hashlib.sha256(body).hexdigest())


def _digest(body: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"
