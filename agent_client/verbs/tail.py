"""`sentinella tail`: the log events as the agent reads them, on the screen and nowhere else."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time

import click

from agent_client.config import Config, LogSource
from agent_client.logreader import Entry
from agent_client.masking import masker_of
from agent_client.verbs.common import OK, PROBLEM, Failure, say, say_json, session, verb
from agent_client.wire import LEVELS

_LOOK_EVERY = 0.5
_COLOURS = {"critical": "red", "error": "red", "warning": "yellow", "debug": "bright_black"}


@verb("tail", short_help="Follow log events as the agent reads them.")
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--level", "-l", type=click.Choice(LEVELS), help="This and worse (default: as sent).")
@click.option("--once", is_flag=True, help="What is there now, and end.")
@click.option(
    "--back", default="16K", show_default=True, help="How much of each file to begin with."
)
def tail(services: tuple[str, ...], level: str | None, once: bool, back: str, as_json: bool) -> int:
    """Follow log events as the agent reads them: joined, with their level, masked.

    Nothing is sent and no position is moved.
    """
    from agent_client.tailer import Tailer

    config = session().load()
    sources = followed(config)
    known = sorted({one.service for one in sources})
    if not known:
        raise Failure("no log is followed; see what is found by `sentinella discover`", PROBLEM)
    if services:
        sources = [one for one in sources if one.service in services]
    if not sources:
        asked = ", ".join(services)
        raise Failure(
            f"no log of {asked} is followed; there are those of {', '.join(known)}", PROBLEM
        )
    size = _size(back)
    mask = masker_of(config)
    tailer = Tailer(
        [dataclasses.replace(one, level=level or one.level, tail=size) for one in sources], {}
    )
    try:
        while True:
            poll = tailer.poll(time.time())
            tailer.accept(poll)
            for entry in sorted(poll.entries, key=lambda one: one.at):
                _print(dataclasses.replace(entry, message=mask(entry.message)), as_json)
            sys.stdout.flush()
            if poll.more:
                continue
            if once:
                return OK
            time.sleep(_LOOK_EVERY)
    finally:
        tailer.close()


def followed(config: Config) -> list[LogSource]:
    """What is configured, and what the running agent says that it follows."""
    sources = list(config.logs)
    named = {one.pattern for one in sources}
    try:
        with open(os.path.join(config.state_dir, "status.json"), encoding="utf-8") as file:
            logs = json.load(file).get("logs", [])
    except (OSError, ValueError):
        return sources  # it never ran: what is configured must do
    for state in logs:
        path = state.get("path", "")
        if os.path.isabs(path) and os.path.isfile(path) and path not in named:
            service = state.get("service", "")
            sources.append(LogSource(path, service, config.level_of(service)))
    return sources


def _size(text: str) -> int:
    from agent_client.config import size

    try:
        return size(text)
    except ValueError as error:
        raise click.UsageError(f"--back {error}") from None


def _print(entry: Entry, as_json: bool) -> None:
    if as_json:
        say_json(dataclasses.asdict(entry), indent=None)
        return
    at = time.strftime("%H:%M:%S", time.localtime(entry.at))
    level = click.style(f"{entry.level.upper():<8}", fg=_COLOURS.get(entry.level))
    say(f"{entry.service} {entry.message}", lead=f"{at} {level} ")
