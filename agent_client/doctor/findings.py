"""What a look found, and as whom it was looked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
from typing import Callable

from agent_client.config import Config

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one look found. `mend` says what to do where it is not ok."""

    name: str
    state: str
    detail: str
    mend: str = ""


def fine(name: str, detail: str) -> Finding:
    """Nothing is wrong with it."""
    return Finding(name, OK, detail)


def warning(name: str, detail: str, mend: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(name, WARNING, detail, mend)


def problem(name: str, detail: str, mend: str) -> Finding:
    """It keeps the agent from working."""
    return Finding(name, PROBLEM, detail, mend)


@dataclasses.dataclass(frozen=True)
class User:
    """As whom the agent works."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str

    @property
    def is_me(self) -> bool:
        """Whether this process is that user already."""
        return self.uid == os.geteuid()


def agent_user(config: Config, pid: int | None) -> User:
    """The user of the running agent, else the owner of its state directory, else oneself."""
    if os.geteuid() != 0:
        return _user(os.geteuid())
    if pid is not None:
        with contextlib.suppress(OSError):  # it ended this instant
            return _user(os.stat(f"/proc/{pid}").st_uid)
    with contextlib.suppress(FileNotFoundError):  # never ran: whoever is to run it
        return _user(os.stat(config.state_dir).st_uid)
    return _user(0)


def _user(uid: int) -> User:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, uid, (uid,), str(uid))
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(uid, entry.pw_gid, tuple(groups), entry.pw_name)


def as_user(user: User, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What `look` finds with the rights of this user; in a child process where it is another."""
    if user.is_me:
        return look()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(user.groups)
            os.setgid(user.gid)
            os.setuid(user.uid)
            found = look()
        except BaseException as error:
            text = f"could not be looked at as {user.name}: {error}"
            found = [problem("files", text, "run doctor as the agent's user")]
        with os.fdopen(writing, "w") as pipe:
            json.dump([dataclasses.asdict(one) for one in found], pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return [Finding(**one) for one in json.loads(said)]
