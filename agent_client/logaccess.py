"""Which logs can be read: files that are held open, and what keeps others from being read."""

from __future__ import annotations

import dataclasses
import grp
import logging
import os
import re
import stat
from typing import Collection

from agent_client import logfiles
from agent_client.config import LogSource
from agent_client.logfiles import Bomb, Content, File, Inode
from agent_client.look import Look

log = logging.getLogger("sentinella.tailer")


@dataclasses.dataclass
class FileState:
    """How one followed path fares, as `sentinella status` shows it."""

    path: str
    service: str
    ok: bool = True
    detail: str = ""
    events: int = 0
    behind: int = 0
    dropped: int = 0


class Access:
    """The open files of an agent's logs, and how each followed path fares."""

    def __init__(self) -> None:
        self.states: dict[str, FileState] = {}
        #: Patterns that name more files than are followed.
        self.too_many: set[str] = set()
        self._open: dict[Inode, Content] = {}
        #: Archives that hold nothing for us, as they were when that was found.
        self._passed_over: dict[Inode, tuple[int, int]] = {}

    def content(self, file: File, look: Look) -> Content | None:
        """The open file; None where it cannot be read, or is another one by now."""
        content = self._open.get(file.inode)
        if content is not None:
            return content
        try:
            content = file.open()
        except OSError as error:
            self.broken(file, error, look)
            return None
        if content is None:
            return None
        self._open[file.inode] = content
        state = self.states.get(file.path)
        if state is not None and not state.ok:
            state.ok, state.detail = True, ""
        look.told.pop(file.path, None)
        return content

    def broken(self, file: File, error: OSError, look: Look) -> None:
        """A file that cannot be read, now or at all."""
        self.close(file.inode)
        if isinstance(error, FileNotFoundError):
            return  # rotated since it was listed
        if file.archive:
            # Still being written, or nothing that we can unpack: looked at again if it changes.
            self.pass_over(file)
            if isinstance(error, Bomb):
                text = f"{file.name} is not read: {error.strerror}; if it is a log, unpack it there"
                log.warning("%s", text)
                look.say(text, file.source.service, file.path)
            return
        detail = f"{file.name}: {error.strerror}"
        if isinstance(error, PermissionError):
            detail = _mend(file.name)
        self._say_unreadable(file.path, file.source.service, detail, look)

    def _say_unreadable(self, path: str, service: str, detail: str, look: Look) -> None:
        state = self.states.setdefault(path, FileState(path, service))
        if state.ok or state.detail != detail:
            log.warning("log %s", detail)
        state.ok, state.detail = False, detail
        if look.told.get(path) != detail:
            look.told[path] = detail
            look.say(f"a log is not read: {detail}", service, path)

    def may_list(self, source: LogSource, look: Look) -> bool:
        """Whether the pattern's directory can be looked into; if not, it is said."""
        fixed = re.split(r"[*?\[]", source.pattern, maxsplit=1)[0]
        barrier = _barrier(os.path.dirname(fixed))
        if barrier is not None:
            self._say_unreadable(source.pattern, source.service, _mend(barrier), look)
            return False
        if source.pattern in self.too_many:
            detail = (
                f"{source.pattern} names more files than the {logfiles.most_files()} that are "
                "followed: narrow it, or raise LimitNOFILE"
            )
            self._say_unreadable(source.pattern, source.service, detail, look)
            return True
        if source.pattern != fixed:
            self.states.pop(source.pattern, None)
            look.told.pop(source.pattern, None)
        return True

    def is_passed_over(self, file: File) -> bool:
        return file.archive and self._passed_over.get(file.inode) == file.seen

    def pass_over(self, file: File) -> None:
        """Leave an archive alone until it changes."""
        self._passed_over[file.inode] = file.seen

    def holds(self, inode: Inode) -> bool:
        """Whether the file is held open."""
        return inode in self._open

    def held(self, inode: Inode) -> Content:
        """A file that is held open."""
        return self._open[inode]

    def close(self, inode: Inode) -> None:
        """Close a file if it is held open."""
        content = self._open.pop(inode, None)
        if content is not None:
            content.close()

    def close_all_but(self, wanted: Collection[Inode]) -> None:
        """Close all files that are held open but these."""
        for inode in [inode for inode in self._open if inode not in wanted]:
            self.close(inode)


def _barrier(directory: str) -> str | None:
    """The first directory on the way that may not be entered, or at its end not be listed."""
    parts = directory.split("/")
    for length in range(2, len(parts) + 1):
        way = "/".join(parts[:length])
        if not os.path.isdir(way):
            return None
        needed = os.X_OK if length < len(parts) else os.X_OK | os.R_OK
        if not os.access(way, needed):
            return way
    return None


def _mend(path: str) -> str:
    """What lets the agent's user read a file or enter a directory."""
    user = logfiles.user_name()
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    directory = stat.S_ISDIR(status.st_mode)
    needed = stat.S_IRGRP | stat.S_IXGRP if directory else stat.S_IRGRP
    said = f"{path} may not be {'entered' if directory else 'read'} by {user}"
    if status.st_mode & needed == needed and status.st_gid != 0:
        try:
            group = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            group = str(status.st_gid)
        return f"{said}: `usermod -aG {group} {user}`, then restart the agent"
    return f"{said}: `setfacl -m u:{user}:{'rx' if directory else 'r'} {path}`"
