"""Space and inodes of mounted filesystems."""

from __future__ import annotations

import dataclasses
import os
import threading

from agent_client.collector import Collector, Points

#: Filesystems that hold files of their own on a disk or another host. Everything else (proc, tmpfs,
#: cgroup, squashfs images, ...) either has no space or cannot fill up.
_REMOTE = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "ceph",
        "glusterfs",
        "lustre",
        "ocfs2",
        "gfs2",
        "beegfs",
        "fuse.glusterfs",
        "fuse.ceph-fuse",
        "fuse.sshfs",
        "fuse.ceph",
        "afs",
        "9p",
    ]
)
_LOCAL = frozenset(
    [
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "f2fs",
        "jfs",
        "reiserfs",
        "vfat",
        "exfat",
        "ntfs",
        "ntfs3",
        "fuseblk",
        "bcachefs",
        "nilfs2",
        "bcache",
        "virtiofs",
    ]
)
_MOUNTS = "/proc/self/mounts"


@dataclasses.dataclass(frozen=True)
class Mount:
    """One line of the kernel's mount table."""

    device: str
    mount: str
    fstype: str


class _Probe:
    """One statvfs in a thread of its own, because it never returns where a remote host is dead."""

    def __init__(self, mount: str) -> None:
        self.result: os.statvfs_result | None = None
        self.error = ""
        self._mount = mount
        self.thread = threading.Thread(target=self._look, name=f"statvfs-{mount}", daemon=True)
        self.thread.start()

    def _look(self) -> None:
        try:
            self.result = os.statvfs(self._mount)
        except OSError as error:
            self.error = error.strerror or str(error)


class Disk(Collector):
    """Space in bytes and inodes in percent, by device, mount and filesystem type.

    `free` is what an ordinary user can still write, and `percent` is used / (used + free), as df
    prints it. A remote filesystem that does not answer within a second is named in a warning and
    not asked again before its first answer.
    """

    name = "disk"
    seconds_per_mount = 1.0

    def __init__(self, config: object, mounts: str = _MOUNTS) -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._mounts = mounts
        self._stuck: dict[str, _Probe] = {}

    def collect(self, points: Points) -> None:
        with open(self._mounts, encoding="utf-8", errors="surrogateescape") as file:
            mounts = worth_watching(file.read())
        for mount in mounts:
            space = self._space(mount, points)
            if space is None or space.f_blocks == 0:
                continue
            used = (space.f_blocks - space.f_bfree) * space.f_frsize
            free = space.f_bavail * space.f_frsize
            inodes = None
            if space.f_files:
                inodes = round(100.0 * (space.f_files - space.f_ffree) / space.f_files, 3)
            points.add(
                "disk",
                {
                    "total": space.f_blocks * space.f_frsize,
                    "used": used,
                    "free": free,
                    "percent": round(100.0 * used / (used + free), 3) if used + free else None,
                    "inodes_percent": inodes,
                },
                {"device": mount.device, "mount": mount.mount, "fstype": mount.fstype},
            )

    def _space(self, mount: Mount, points: Points) -> os.statvfs_result | None:
        if mount.fstype not in _REMOTE:
            try:
                return os.statvfs(mount.mount)
            except OSError as error:
                points.warn(f"{mount.mount}: {error.strerror}")
                return None
        probe = self._stuck.pop(mount.mount, None) or _Probe(mount.mount)
        probe.thread.join(self.seconds_per_mount)
        if probe.thread.is_alive():
            self._stuck[mount.mount] = probe
            points.warn(f"{mount.mount}: {mount.fstype} does not answer")
        elif probe.error:
            points.warn(f"{mount.mount}: {probe.error}")
        return probe.result


def worth_watching(table: str) -> list[Mount]:
    """The mounts of a mount table that can fill up, each filesystem once (bind mounts are not)."""
    seen: dict[str, Mount] = {}
    for line in table.splitlines():
        columns = line.split(" ")
        if len(columns) < 3:
            continue
        device, mount, fstype = (_unescape(column) for column in columns[:3])
        known = fstype in _LOCAL or fstype in _REMOTE
        if not known and not (fstype == "overlay" and mount == "/"):
            continue
        if device.startswith("/dev/"):
            if not device.startswith("/dev/mapper/"):
                device = os.path.realpath(device)
            device = device[len("/dev/") :]
        kept = seen.get(device)
        if kept is None or len(mount) < len(kept.mount):
            seen[device] = Mount(device, mount, fstype)
    return list(seen.values())


def _unescape(column: str) -> str:
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        column = column.replace(escaped, plain)
    return column.encode("utf-8", "replace").decode("utf-8")
