"""A fresh Debian 12 below a directory, built packages, and an instance that offers them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent_client.packaging.build import build
from tests.e2e.product import Organization, Product

MIRROR = "http://deb.debian.org/debian"
PACKAGES = "python3,curl,ca-certificates"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/packages" in item.path.as_posix():
            item.add_marker(pytest.mark.packages)


class Debian:
    """A root directory with Debian 12 in it, entered by chroot."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, said: str = "", check: bool = True) -> str:
        """What a command in it prints; the instance outside is reached over loopback."""
        done = subprocess.run(
            ["chroot", str(self.root), *command],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            input=said,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["chroot", str(self.root), *command], stdin=subprocess.DEVNULL, start_new_session=True
        )

    def put(self, path: str, content: bytes | Path) -> str:
        """Put a file into it; its path inside."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        return path

    def files(self) -> set[str]:
        """Everything that is neither Debian's own state nor a log."""
        skipped = (
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "var/cache",
            "var/lib/dpkg",
            "var/lib/apt",
            "var/log",
        )
        found = set()
        for place, directories, names in os.walk(self.root):
            inside = os.path.relpath(place, self.root)
            if inside.startswith(skipped):
                directories.clear()
                continue
            found.update(os.path.join(inside, name) for name in [*names, *directories])
        return {path for path in found if "__pycache__" not in path}


@contextmanager
def _mounted(kind: str, place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", kind, kind, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def debian() -> Iterator[Debian]:
    if os.geteuid() != 0:
        pytest.exit("a Debian of its own is made by root: sudo make test-packages", returncode=4)
    place = Path(tempfile.mkdtemp(prefix="sentinella-debian-"))
    root = place / "root"
    mirror = os.environ.get("DEBIAN_MIRROR", MIRROR)
    try:
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, mirror],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with ExitStack() as mounts:
            mounts.enter_context(_mounted("proc", root / "proc"))
            yield Debian(root)
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the packages, built now."""
    output = tmp_path_factory.mktemp("packages")
    build(output, ["amd64", "arm64"])
    return output


@pytest.fixture(scope="session")
def acme(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organization]:
    """An organization of a running instance that offers the packages."""
    product = Product(tmp_path_factory.mktemp("instance"), 9, "--no-agent")
    product.instance.environ["AGENT_PACKAGES"] = str(packages)
    try:
        product.start()
        yield product.bootstrap("acme")
    finally:
        product.stop()
