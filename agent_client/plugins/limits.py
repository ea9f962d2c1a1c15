"""What one plugin may use."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds; the defaults are for what nobody has looked at."""

    #: As whom it runs, and with which further groups.
    user: str = "sentinella-plugin"
    groups: tuple[str, ...] = ()
    #: Address space; percent of one processor, on average; open files; processes of that user.
    memory: int = 512 * 1024**2
    cpu: float = 50.0
    files: int = 256
    processes: int = 256
    #: Whether it may use the network at all.
    network: bool = False
    #: Paths that it may read, and write, beside what every program reads.
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    #: Without a sign of life for so long it is taken to hang.
    hang_after: float = 600.0
