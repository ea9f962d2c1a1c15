"""What one plugin may use."""

from __future__ import annotations

import dataclasses
import pwd

#: Who a plugin is where its own user is not there: a user without files.
FALLBACK = "nobody"


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds; the defaults are for what nobody has looked at."""

    #: As whom it runs, and with which further groups. As root only where this says so.
    user: str = "sentinella-plugin"
    groups: tuple[str, ...] = ()
    #: Files of `plugins_dir`, by name without `.conf`, that it is told beside those named after it.
    config: tuple[str, ...] = ()
    #: Address space; percent of one processor, on average; open files; processes (with
    #: their threads) of that user, for the kernel counts no other way.
    memory: int = 512 * 1024**2
    cpu: float = 50.0
    files: int = 256
    processes: int = 128
    #: Whether it may use the network at all.
    network: bool = False
    #: Paths that it may read, and write, beside what every program reads.
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    #: Without a sign of life for so long it is taken to hang.
    hang_after: float = 600.0


def user_of(limits: Limits) -> tuple[pwd.struct_passwd | None, str]:
    """As whom a plugin is to run, and why that is not who was named."""
    try:
        return pwd.getpwnam(limits.user), ""
    except KeyError:
        lacks = f"there is no user {limits.user} (useradd --system {limits.user})"
    try:
        return pwd.getpwnam(FALLBACK), lacks
    except KeyError:
        return None, lacks
