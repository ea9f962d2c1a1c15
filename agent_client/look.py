"""What one look at all logs brings; it counts once it is stored."""

from __future__ import annotations

from typing import Mapping

from agent_client.logfiles import Archive, Key, Position
from agent_client.loglimit import Limiter
from agent_client.logreader import Entry

#: Bytes that one look unpacks of archives before it comes to what is in them: some tenths of a
#: second. A larger archive is gone through over several looks.
UNPACKED_PER_LOOK = 64 * 1024**2


class Look:
    """What one look changes; it counts once it is stored."""

    def __init__(
        self,
        positions: Mapping[Key, Position],
        looked: Mapping[str, float],
        told: Mapping[str, str],
        limiter: Limiter,
        now: float,
    ) -> None:
        self.positions: dict[Key, Position] = dict(positions)
        self.looked: dict[str, float] = dict(looked)
        self.told: dict[str, str] = dict(told)
        self.limiter = limiter
        self.now = now
        self.entries: list[Entry] = []
        self.drained: dict[Key, tuple[int, int]] = {}
        #: How often each path was found copied and truncated.
        self.copied: dict[str, int] = {}
        #: Bytes that may still be unpacked before anything of them is read.
        self.to_unpack = UNPACKED_PER_LOOK

    def prepares(self, archive: Archive, start: int | None) -> bool:
        """Whether an archive is unpacked as far as need be. Raises OSError."""
        enough, spent = archive.prepare(start, self.to_unpack)
        self.to_unpack -= spent
        return enough

    def say(self, text: str, service: str, path: str, level: str = "warning") -> None:
        """Tell as an event what befell a log."""
        self.entries.append(Entry(self.now, level, text, service, "sentinella.tailer", path=path))
