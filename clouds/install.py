"""The one-line install: a shell script and what it fetches, all served by this installation.

The wheel is made from the agent's own sources at first use, so what is installed always fits the
server that it will report to. Debian packages and RPMs are offered beside it where
`make agent-packages` has built them.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.template.loader import render_to_string

from agent_client.packaging import wheel
from agent_client.wire import VERSION
from sentinel_site.kit.tenancy import public_url

UNIT_FILES = wheel.AGENT / "packaging" / "files"
#: How a package's name ends: what installs it, and for which machine (as `uname -m` says).
PACKAGES = {
    f"_{VERSION}_amd64.deb": ("deb", "x86_64"),
    f"_{VERSION}_arm64.deb": ("deb", "aarch64"),
    f"-{VERSION}-1.x86_64.rpm": ("rpm", "x86_64"),
    f"-{VERSION}-1.aarch64.rpm": ("rpm", "aarch64"),
}


@dataclass(frozen=True)
class Offer:
    """A file that a server can install the agent from; SHA-256 in hex."""

    kind: str
    machine: str
    name: str
    sha256: str
    path: Path | None = None

    @property
    def url(self) -> str:
        return public_url("install-file", self.name)

    def content(self) -> bytes:
        return self.path.read_bytes() if self.path else wheel.wheel().content


def offers() -> list[Offer]:
    """The wheel, then the packages of this very version that have been built."""
    made = wheel.wheel()
    found = [Offer("wheel", "any", made.name, made.sha256)]
    for ending, (kind, machine) in PACKAGES.items():
        path = Path(settings.AGENT_PACKAGES) / f"sentinella{ending}"
        if path.is_file():
            known = path.stat()
            sha256 = _sha256(path, known.st_mtime_ns, known.st_size)
            found.append(Offer(kind, machine, path.name, sha256, path))
    return found


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, changed_ns: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def line(token: str) -> str:
    """What to paste on a server; it checks the script before running it, as root.

    The token in it works once, and reaches no command line that other users could list.
    """
    sha256 = hashlib.sha256(script().encode()).hexdigest()
    return (
        f'f=$(mktemp) && curl -fsSL {public_url("install")} -o "$f"'
        f' && echo "{sha256}  $f" | sha256sum -c --quiet'
        f' && echo {token} | $(command -v sudo) sh "$f"'
    )


def by_hand(token: str) -> list[tuple[str, str]]:
    """The same with the tools that a team may have already: (name, commands)."""
    enrol = f"echo {token} | sudo sentinella enrol --server {settings.PUBLIC_URL} --token -"
    ways = []
    for offer in offers():
        fetch = (
            f"curl -fsSLO {offer.url}\n"
            f"echo '{offer.sha256}  {offer.name}' | sha256sum -c --quiet &&"
        )
        start = f"{enrol}\nsudo systemctl restart sentinella"
        if offer.kind == "deb" and offer.machine == "x86_64":
            ways.append(("apt", f"{fetch}\nsudo apt install ./{offer.name}\n{start}"))
        elif offer.kind == "rpm" and offer.machine == "x86_64":
            ways.append(("dnf", f"{fetch}\nsudo dnf install ./{offer.name}\n{start}"))
        elif offer.kind == "wheel":
            ways.append(
                (
                    "pip",
                    f"# as root; or first: export SENTINELLA_STATE_DIR=$PWD/state\n"
                    f"python3 -m venv sentinella\n"
                    f"sentinella/bin/pip install '{offer.url}#sha256={offer.sha256}'\n"
                    f"echo {token} | sentinella/bin/sentinella --config agent.toml enrol"
                    f" --server {settings.PUBLIC_URL} --token -\n"
                    "sentinella/bin/sentinella --config agent.toml run",
                )
            )
    return ways


def script() -> str:
    """The POSIX shell script that the line runs."""
    unit = (UNIT_FILES / "sentinella.service").read_text()
    return render_to_string(
        "clouds/install.sh",
        {
            "server": settings.PUBLIC_URL,
            "base": public_url("install-file", "NAME").removesuffix("NAME"),
            "offers": offers(),
            "unit": unit,
            "join_groups": (UNIT_FILES / "join-groups").read_text(),
            "users": (UNIT_FILES / "users").read_text(),
        },
    )
