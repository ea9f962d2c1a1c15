"""What is said when it begins, and not with every cycle that it lasts."""

from __future__ import annotations

import logging


class Once:
    """One trouble at a time, in a log of its own; not for several threads at once."""

    def __init__(self, log: logging.Logger, level: int = logging.WARNING) -> None:
        self._log = log
        self._level = level
        self._said = ""

    def trouble(self, text: str) -> None:
        """Say it, if it is not what was said last."""
        if text != self._said:
            self._log.log(self._level, "%s", text)
            self._said = text

    def over(self, text: str = "") -> bool:
        """It is over, which is said too if there is a text for it; whether there was a trouble."""
        was, self._said = bool(self._said), ""
        if was and text:
            self._log.info("%s", text)
        return was
