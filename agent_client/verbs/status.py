"""`sentinella status`: what it sees, what it sent, what waits."""

from __future__ import annotations

import time

from agent_client.verbs.common import OK, PROBLEM, each_on_a_line, say, say_json, session, verb


@verb("status", short_help="What it sees, what it sent, what waits.")
def status(as_json: bool) -> int:
    """What the agent sees, what it sent, what waits; exit code 1 if something needs a person."""
    from agent_client.status import gather, told

    found = gather(session().load())
    if as_json:
        say_json(found)
    else:
        say(told(each_on_a_line(found), time.time()).rstrip("\n"))
    return PROBLEM if found["problems"] else OK
