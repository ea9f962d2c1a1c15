"""`sentinella discover`: what runs on this host, how that is known, and what is uncertain."""

from __future__ import annotations

import click

from agent_client.verbs.common import OK, Failure, each_on_a_line, say, say_json, session, verb


@verb("discover", short_help="What runs on this host, by what that is known.")
@click.option("--forget", metavar="NAME", help="No longer expect this service, which is down.")
def discover(forget: str | None, as_json: bool) -> int:
    """Look once at everything: services, their logs, OpenStack's release, the host's role.

    What one's user may not see is said. Nothing is changed or sent, but for --forget: a running
    agent then no longer reports that service as down, unless it runs again.
    """
    from agent_client.discovery import report

    config = session().load()
    if forget is not None:
        if not report.forget(config, forget):
            raise Failure(f"{forget} has not been seen here; `sentinella discover` lists all")
        if as_json:
            say_json({"forgotten": forget})
        else:
            say(f"{forget} is not expected any more")
        return OK
    found = report.discover(config)
    if as_json:
        say_json(found)
    else:
        say(report.told(each_on_a_line(found)).rstrip("\n"))
    return OK
