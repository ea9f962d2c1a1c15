"""Files of the agent that others may not read."""

from __future__ import annotations

import contextlib
import os
import stat


def too_open(status: os.stat_result) -> bool:
    """Whether others than the owner may read: root may share a file with the agent's group."""
    shared = stat.S_IRGRP if status.st_uid == 0 and status.st_gid != 0 else 0
    return bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~shared)


def write_private(path: str, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Owner, group and a group's right to read stay as they were where the file exists; a new one that
    root writes belongs to whom its directory belongs, so that the agent's user can read it.
    """
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    # Root writes into the directory of a user that is not: what that user laid there, as a link, is
    # taken away and never followed.
    temporary = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            before = os.stat(path)
        except FileNotFoundError:
            os.fchmod(descriptor, 0o600)
            if os.geteuid() == 0:
                above = os.stat(os.path.dirname(path) or ".")
                os.fchown(descriptor, above.st_uid, above.st_gid)
        else:
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            shared = stat.S_IRGRP if not too_open(before) else 0
            os.fchmod(descriptor, 0o600 | (before.st_mode & shared))
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
