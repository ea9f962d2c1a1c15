"""`sentinella doctor`: what keeps the agent from working, and how to mend it."""

from __future__ import annotations

import dataclasses
import os
import time

import click

from agent_client.config import ConfigError
from agent_client.verbs.common import OK, say, say_json, session, verb
from agent_client.verbs.common import PROBLEM as WRONG


@verb("doctor", short_help="Find what keeps it from working, each with a mend.")
def doctor(as_json: bool) -> int:
    """Look at configuration, files, disk, spool, clock, and each step of the way to the server.

    Run it as root: files are then looked at with the rights of the agent's user. Exit code 1 if
    there is a problem; warnings alone are 0.
    """
    from agent_client import doctor as looks

    try:
        found = looks.examine(session().load(), os.environ, time.time)
    except ConfigError as error:
        mend = "correct the file; docs/agent.md has every option, `sentinella init` makes a new one"
        found = [looks.Finding("configuration", looks.PROBLEM, str(error), mend)]
    worst = looks.verdict(found)
    if as_json:
        say_json({"verdict": worst, "findings": [dataclasses.asdict(one) for one in found]})
    else:
        colours = {looks.PROBLEM: "red", looks.WARNING: "yellow", looks.OK: "green"}
        for one in found:
            lead = click.style(f"{one.state:<8}", fg=colours[one.state])
            say(f"{one.name}: {one.detail}", lead=f"{lead} ")
            if one.state != looks.OK:
                say(f"         mend: {one.mend}")
    return WRONG if worst == looks.PROBLEM else OK
