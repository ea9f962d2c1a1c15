"""Builds the wheel, the Debian packages and the RPMs of the agent, the same bytes each time.

The packages bring the agent and what it needs (`lock.txt`, checked by hash) below
/usr/lib/sentinella, with no virtual environment and nothing compiled on the host; they need only
the system's Python. psutil's stable-ABI wheel serves every Python from 3.8 on.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Mapping, Sequence

from click.shell_completion import BashComplete

from agent_client.cli import program
from agent_client.packaging.manual import manual
from agent_client.packaging.project import project
from agent_client.packaging.wheel import AGENT, sources, wheel
from agent_client.wire import VERSION

FILES = Path(__file__).parent / "files"
LOCK = Path(__file__).parent / "lock.txt"
#: Debian's name of an architecture: RPM's name, and the tag of the wheels for it.
ARCHITECTURES = {
    "amd64": ("x86_64", "manylinux2014_x86_64"),
    "arm64": ("aarch64", "manylinux2014_aarch64"),
}
_OLDEST = 315_532_800  # 1980, the oldest time that a zip can hold
_PROGRAMS = ("usr/bin/sentinella", "usr/lib/sentinella/join-groups", "usr/lib/sentinella/users")


class BuildError(Exception):
    """A package could not be built; the text says what to do."""


def build(output: Path, architectures: Sequence[str]) -> list[Path]:
    """Build everything into a directory and return the files. Raises BuildError."""
    output.mkdir(parents=True, exist_ok=True)
    made = wheel()
    (output / made.name).write_bytes(made.content)
    found = [output / made.name]
    for architecture in architectures:
        with tempfile.TemporaryDirectory(prefix="sentinella-package-") as place:
            tree = Path(place, "tree")
            _stage(tree, architecture)
            _set_times(tree)
            found.append(_deb(tree, Path(place), output, architecture))
            found.append(_rpm(tree, Path(place), output, architecture))
    return found


def _stage(tree: Path, architecture: str) -> None:
    """Lay out what the package puts on a host, apart from control files."""
    library = tree / "usr/lib/sentinella"
    for name, content in sources().items():
        _put(library / "agent_client" / name, content)
    _unpack_dependencies(library, ARCHITECTURES[architecture][1])
    _put(tree / "usr/bin/sentinella", (FILES / "sentinella").read_bytes())
    _put(library / "join-groups", (FILES / "join-groups").read_bytes())
    _put(library / "users", (FILES / "users").read_bytes())
    _put(
        tree / "usr/lib/systemd/system/sentinella.service",
        (FILES / "sentinella.service").read_bytes(),
    )
    _put(tree / "etc/logrotate.d/sentinella", (FILES / "logrotate").read_bytes())
    _put(
        tree / "usr/share/man/man1/sentinella.1.gz",
        gzip.compress(manual().encode(), compresslevel=9, mtime=0),
    )
    _put(tree / "usr/share/bash-completion/completions/sentinella", _completion().encode())
    licence = AGENT.parent / "LICENSE"
    _put(
        tree / "usr/share/doc/sentinella/copyright",
        f"License: Apache-2.0\n\n{licence.read_text()}".encode(),
    )
    for path in tree.rglob("*"):
        runs = path.is_dir() or str(path.relative_to(tree)) in _PROGRAMS
        path.chmod(0o755 if runs else 0o644)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _unpack_dependencies(library: Path, platform: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sentinella-wheels-") as place:
        _run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", place,
                "--platform", platform, "--python-version", "3.8", "--implementation", "cp",
                "--abi", "abi3", "--abi", "none", "--requirement", str(LOCK),
            ],
            "the wheels of lock.txt could not be fetched",
        )  # fmt: skip
        for found in sorted(Path(place).glob("*.whl")):
            with zipfile.ZipFile(found) as archive:
                archive.extractall(library)


def _completion() -> str:
    return BashComplete(program, {}, "sentinella", "_SENTINELLA_COMPLETE").source()


def _set_times(tree: Path) -> None:
    moment = _epoch()
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (moment, moment))


def _epoch() -> int:
    """SOURCE_DATE_EPOCH, else the time of the last commit of the agent, else 1980."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not told:
        done = subprocess.run(
            ["git", "-C", str(AGENT), "log", "-1", "--format=%ct", "--", "."],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        told = done.stdout.strip()
    return max(_OLDEST, int(told)) if told.isdigit() else _OLDEST


def _deb(tree: Path, place: Path, output: Path, architecture: str) -> Path:
    root = place / "deb"
    shutil.copytree(tree, root, copy_function=shutil.copy2)
    systemd = root / "usr/lib/systemd/system/sentinella.service"
    _put(root / "lib/systemd/system/sentinella.service", systemd.read_bytes())
    shutil.rmtree(root / "usr/lib/systemd")
    control = root / "DEBIAN"
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    _put(control / "control", _control(architecture, size).encode())
    _put(control / "conffiles", b"/etc/logrotate.d/sentinella\n")
    for script in ("preinst", "postinst", "prerm", "postrm"):
        _put(control / script, (FILES / "deb" / script).read_bytes())
        (control / script).chmod(0o755)
    for path in (*root.rglob("*"), root):
        if path.is_dir():
            path.chmod(0o755)
    (root / "lib/systemd/system/sentinella.service").chmod(0o644)
    _set_times(root)
    path = output / f"sentinella_{VERSION}_{architecture}.deb"
    _run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(path)],
        "dpkg-deb failed; on Debian it comes with dpkg",
    )
    return path


def _control(architecture: str, size: int) -> str:
    return (
        f"Package: sentinella\nVersion: {VERSION}\nArchitecture: {architecture}\n"
        "Section: admin\nPriority: optional\nMaintainer: Sentinella <agent@sentinella.invalid>\n"
        f"Installed-Size: {size}\n"
        "Depends: python3 (>= 3.8), libc6 (>= 2.17), passwd\n"
        "Recommends: ca-certificates\n"
        "Suggests: logrotate, libvirt-clients, python3-openstacksdk, python3-pymysql,"
        " python3-zstandard\n"
        f"Description: {project().summary}\n"
        " It finds the OpenStack services of this server by itself, and keeps on disk what was\n"
        " measured while the server can't be reached.\n"
    )


def _rpm(tree: Path, place: Path, output: Path, architecture: str) -> Path:
    target, _ = ARCHITECTURES[architecture]
    macros = {
        "_topdir": str(place / "rpm"),
        "_rpmdir": str(place / "rpms"),
        "_buildhost": "reproducible",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        "_binary_payload": "w6.xzdio",
        "agent_version": VERSION,
        "agent_summary": project().summary,
        "agent_tree": str(tree),
    }
    _run(
        [
            "rpmbuild", "-bb", "--quiet", "--target", f"{target}-linux",
            *(part for key, value in macros.items() for part in ("--define", f"{key} {value}")),
            str(FILES / "rpm" / "sentinella.spec"),
        ],
        "rpmbuild failed; on Debian: apt install rpm",
        {"SOURCE_DATE_EPOCH": str(_epoch())},
    )  # fmt: skip
    (built,) = (place / "rpms").rglob("*.rpm")
    return Path(shutil.copy(built, output / f"sentinella-{VERSION}-1.{target}.rpm"))


def _run(command: Sequence[str], trouble: str, environ: Mapping[str, str] | None = None) -> None:
    epoch = {"SOURCE_DATE_EPOCH": str(_epoch())}
    try:
        done = subprocess.run(
            command, env={**os.environ, **epoch, **(environ or {})},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise BuildError(f"{trouble}: {command[0]} is not installed") from None
    if done.returncode:
        raise BuildError(f"{trouble}:\n{done.stdout}{done.stderr}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent_client.packaging", description=__doc__)
    parser.add_argument("--output", type=Path, default=AGENT.parent / "dist" / "agent")
    parser.add_argument(
        "--arch", action="append", choices=sorted(ARCHITECTURES), help="default: all of them"
    )
    options = parser.parse_args(arguments)
    try:
        found = build(options.output, options.arch or sorted(ARCHITECTURES))
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for path in found:
        sys.stdout.write(f"{path.stat().st_size / 1024:8.0f} KiB  {path}\n")
    return 0
