"""Looks for what keeps an agent from working, and says for each thing found how to mend it.

Each look is at the thing itself: the file is opened as the agent's user, the name is looked up, the
connection made step by step.
"""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from agent_client.config import Config
from agent_client.doctor import host, way
from agent_client.doctor.findings import OK, PROBLEM, WARNING, Finding, agent_user, as_user

__all__ = ["OK", "PROBLEM", "WARNING", "Finding", "examine", "verdict"]


def examine(config: Config, environ: Mapping[str, str], now: Callable[[], float]) -> list[Finding]:
    """Every look, in the order in which things are needed."""
    pid = host.holder(config.state_dir)
    user = agent_user(config, pid)
    return [
        *host.configured(config),
        *as_user(
            user,
            lambda: [
                *host.files(config, user),
                *host.logs(config, user),
                *host.guests(config),
            ],
        ),
        *host.agent(config, pid, now()),
        *host.plugins(config, user),
        *host.spool(config),
        *host.time_zone(environ),
        *way.server(config, now),
    ]


def verdict(found: Sequence[Finding]) -> str:
    """The worst of all."""
    states = {one.state for one in found}
    return PROBLEM if PROBLEM in states else WARNING if WARNING in states else OK
