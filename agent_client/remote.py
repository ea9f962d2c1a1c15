"""Settings that the server asks for: taken only where the agent's own configuration consents."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import Any, Mapping

from agent_client.config import Config
from agent_client.private_files import write_private
from agent_client.wire import LEVELS

log = logging.getLogger("sentinella.remote")

_FILE = "settings.json"
_SHORTEST, _LONGEST = 5.0, 3600.0
_LARGEST = 1e12


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is asked for; what is empty stays as configured. Times in Unix seconds."""

    version: int
    interval: float | None = None
    levels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    levels_until: float | None = None
    collectors: Mapping[str, bool] = dataclasses.field(default_factory=dict)


def parse(said: object) -> Settings:
    """Settings as a server's answer has them. Raises ValueError: then none of them is taken."""
    if not isinstance(said, dict):
        raise ValueError("settings are no object")
    version, interval = said.get("version"), said.get("interval")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError("settings have no version")
    if interval is not None and not (_is_number(interval) and _SHORTEST <= interval <= _LONGEST):
        raise ValueError(f"interval {interval!r} is not between {_SHORTEST:g} and {_LONGEST:g} s")
    levels, until = said.get("levels") or {}, said.get("levels_until")
    if not isinstance(levels, dict) or not all(level in LEVELS for level in levels.values()):
        raise ValueError(f"levels {levels!r} are not of {', '.join(LEVELS)}")
    if until is not None and not _is_number(until):
        raise ValueError(f"levels_until {until!r} is no time")
    collectors = said.get("collectors") or {}
    if not isinstance(collectors, dict) or not all(
        isinstance(on, bool) for on in collectors.values()
    ):
        raise ValueError(f"collectors {collectors!r} are not each on or off")
    return Settings(
        version, interval, {str(k): v for k, v in levels.items()}, until,
        {str(name): on for name, on in collectors.items()},
    )  # fmt: skip


def _is_number(value: object) -> bool:
    """Whether it is one that a float holds; neither infinite nor NaN, which JSON text may say."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -_LARGEST < value < _LARGEST  # type: ignore[operator]


def applied(config: Config, settings: Settings | None, now: float) -> Config:
    """The configuration as the settings change it at this time; unchanged without consent."""
    if settings is None or not config.remote:
        return config
    levels = dict(settings.levels)
    if settings.levels_until is not None and now >= settings.levels_until:
        levels = {}
    named = {name: level for name, level in levels.items() if name != "default"}
    general = levels.get("default")
    return dataclasses.replace(
        config,
        interval=settings.interval or config.interval,
        levels={**config.levels, **({"": general} if general else {}), **named},
        logs=tuple(
            dataclasses.replace(one, level=named.get(one.service) or general or one.level)
            for one in config.logs
        ),
        collectors={**config.collectors, **settings.collectors},
    )


def load(state_dir: str) -> Settings | None:
    """What was asked for before this process began."""
    try:
        with open(os.path.join(state_dir, _FILE), encoding="utf-8") as file:
            return parse(json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("settings of the server cannot be read again and are asked anew: %s", error)
        return None


def store(state_dir: str, settings: Settings) -> None:
    """Keep it for the next start. Raises OSError."""
    text = json.dumps(dataclasses.asdict(settings))
    write_private(os.path.join(state_dir, _FILE), text + "\n")


def described(config: Config, settings: Settings | None, error: str) -> dict[str, Any]:
    """What the server is told of it, among the specs."""
    said: dict[str, Any] = {"remote": config.remote}
    if config.remote and settings is not None:
        said["version"] = settings.version
    if error:
        said["error"] = error[:300]
    return said
