"""The overlay that holds OpenStack's packages, made once and kept, and mounted over this machine.

Kept in one folder: `packages/` (what apt installed), `prepared/` (the same with configuration,
databases and users), `run/` (what the running cloud changed; thrown away).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
STATE = Path(os.environ.get("SENTINELLA_OPENSTACK_DIR", "/var/tmp/sentinella-openstack"))  # noqa: S108
PACKAGES_LAYER = STATE / "packages"
PREPARED_LAYER = STATE / "prepared"
RUN = STATE / "run"
ROOT = RUN / "root"

_INFRASTRUCTURE = ("mariadb-server", "rabbitmq-server", "memcached", "haproxy")
_TOOLS = ("python3-openstackclient", "python3-heatclient", "iptables", "iproute2", "sudo")
PACKAGES = (
    *_INFRASTRUCTURE,
    "keystone",
    "glance-api",
    "placement-api",
    *(f"nova-{part}" for part in ("api", "scheduler", "conductor", "compute", "compute-qemu")),
    *(f"neutron-{part}" for part in ("api", "rpc-server", "linuxbridge-agent", "dhcp-agent")),
    *(f"neutron-{part}" for part in ("l3-agent", "metadata-agent")),
    *(f"cinder-{part}" for part in ("api", "scheduler", "volume")),
    *(f"heat-{part}" for part in ("api", "engine")),
    *_TOOLS,
)
_NEEDED_BYTES = 6 * 1024**3
_APT = [
    "apt-get", "-y", "-qq", "--no-install-recommends",
    "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-unsafe-io",
    "-o", "Dpkg::Options::=--force-confold",
    "-o", "Dpkg::Options::=--path-exclude=/usr/share/doc/*",
]  # fmt: skip


class CannotRun(Exception):
    """Why this machine cannot hold the cloud, and what to do."""


def check_machine() -> None:
    """Raises CannotRun."""
    if os.geteuid() != 0:
        raise CannotRun("root is needed, to mount and to make namespaces: run it with sudo")
    release = dict(
        line.strip().split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    if release.get("VERSION_CODENAME") != "bookworm":
        raise CannotRun("Debian 12 (bookworm) is needed: the packages of Zed come from there")
    if "overlay" not in Path("/proc/filesystems").read_text():
        raise CannotRun("this kernel has no overlay filesystem: modprobe overlay")
    STATE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(STATE).free
    if not (PACKAGES_LAYER / "installed").exists() and free < _NEEDED_BYTES:
        raise CannotRun(
            f"{STATE} has {free >> 20} MiB free and needs {_NEEDED_BYTES >> 20}: make room, or "
            "set SENTINELLA_OPENSTACK_DIR to another place"
        )


def packages_stamp() -> str:
    """Names this machine's own packages with ours: another state of either is another layer."""
    digest = hashlib.sha256(Path("/var/lib/dpkg/status").read_bytes())
    digest.update(" ".join(PACKAGES).encode())
    return digest.hexdigest()


def prepared_stamp() -> str:
    """Names the packages and the sources that configured them."""
    digest = hashlib.sha256(packages_stamp().encode())
    for name in ("settings.py", "prepare.py"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def fits(folder: Path, stamp: str) -> bool:
    """Whether a layer was finished, and of this stamp."""
    try:
        return (folder / "stamp").read_text() == stamp
    except FileNotFoundError:
        return False


def mount_base(folder: Path, upper: Path, work: Path) -> None:
    """This machine's files with `upper` over them, at `folder`, for this mount namespace."""
    for made in (folder, upper, work):
        made.mkdir(parents=True, exist_ok=True)
    mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", folder)


def mount_over(folder: Path, lower: Path, upper: Path, work: Path) -> None:
    """`lower` with `upper` over it, at `folder`."""
    for made in (folder, upper, work):
        made.mkdir(parents=True, exist_ok=True)
    mount(
        "-t", "overlay", "overlay",
        "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", folder,
    )  # fmt: skip


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def install() -> None:
    """Install the packages into their layer; started as the first process of a mount namespace."""
    mount("--make-rprivate", "/")
    folder = STATE / "installing"
    mount_base(folder, PACKAGES_LAYER / "files", PACKAGES_LAYER / "work")
    for name in ("proc", "sys", "dev"):
        mount("--rbind", f"/{name}", folder / name)
    mount("-t", "tmpfs", "tmpfs", folder / "run")
    os.chroot(folder)
    os.chdir("/")
    policy = Path("/usr/sbin/policy-rc.d")
    policy.write_text("#!/bin/sh\nexit 101\n")  # packages of services must not start them
    policy.chmod(0o755)
    answers = ["dbconfig-common dbconfig-common/dbconfig-install boolean false"]
    for project in ("keystone", "glance", "placement", "nova", "neutron", "cinder", "heat"):
        for package in (project, f"{project}-common", f"{project}-api"):
            answers.append(f"{package} {project}/configure_db boolean false")
            answers.append(f"{package} {project}/register-endpoint boolean false")
    said = os.environ | {
        "DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    subprocess.run(
        ["debconf-set-selections"], input="\n".join(answers) + "\n", text=True, check=True, env=said
    )
    subprocess.run([*_APT, "update"], check=True, env=said)
    subprocess.run([*_APT, "install", *PACKAGES], check=True, env=said)
