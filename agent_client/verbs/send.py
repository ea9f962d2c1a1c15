"""`sentinella send`: one point or event of a script, kept until the server has it."""

from __future__ import annotations

import os
import time
from typing import Any, Mapping, Sequence

import click

from agent_client.config import Config, ConfigError
from agent_client.verbs.common import OK, STATE, Failure, json_option, say, say_json, session
from agent_client.wire import LEVELS

#: Where the group keeps that `--json` stood before the verb of it.
_AS_JSON = "sentinella.send.json"


@click.group(short_help="Send one metric or event of a script.")
def send(as_json: bool) -> None:
    """Hand one metric or event to the agent, or send it directly where none runs.

    It returns when the item is on disk, in the spool: from then on it survives an agent that is
    killed and a server that is away.
    """
    click.get_current_context().meta[_AS_JSON] = as_json


@send.command()
@click.argument("measurement")
@click.argument("fields", nargs=-1, required=True, metavar="FIELD=NUMBER...")
@click.option("--tag", "-t", "tags", multiple=True, metavar="NAME=TEXT", help="May be repeated.")
def metric(measurement: str, fields: Sequence[str], tags: Sequence[str], as_json: bool) -> int:
    """Send numbers: sentinella send metric backup seconds=41.5 bytes=9e9 --tag target=s3."""
    numbers = {}
    for name, text in (_pair(field, "FIELD=NUMBER") for field in fields):
        try:
            numbers[name] = float(text)
        except ValueError:
            raise click.UsageError(f"{name}: {text!r} is no number") from None
    return _send(
        {
            "measurement": measurement,
            "fields": numbers,
            "tags": dict(_pair(tag, "NAME=TEXT") for tag in tags),
        },
        as_json,
    )


@send.command()
@click.argument("message")
@click.option("--level", "-l", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--service", "-s", default="", help="The service that it is about.")
@click.option("--component", default="", help="The part of it, or the script's name.")
def event(message: str, level: str, service: str, component: str, as_json: bool) -> int:
    """Send a line: sentinella send event "backup failed" --level error --service backup."""
    return _send(
        {"message": message, "level": level, "service": service, "component": component}, as_json
    )


send.params.append(json_option())
metric.params.append(json_option())
event.params.append(json_option())


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r} is not written {form}")
    return name, value


def _send(item: Mapping[str, Any], as_json: bool) -> int:
    from agent_client import inbox

    config = session().load()
    try:  # before anything is asked of anybody
        inbox.point_of(item) if "measurement" in item else inbox.entry_of(item, 0.0)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        inbox.hand_over(config.state_dir, [item])
        how = "spooled"
    except inbox.NotRunning:
        how = _directly(config, item)
    except inbox.Unstorable as error:
        raise Failure(f"the agent refused it: {error}", STATE) from None
    if as_json or click.get_current_context().meta[_AS_JSON]:
        say_json({"stored": True, "how": how})
    elif how == "kept":
        say("kept: the server is away, the agent sends it when it runs")
    return OK


def _directly(config: Config, item: Mapping[str, Any]) -> str:
    """Without an agent: through the spool all the same, and then to the server."""
    from agent_client import inbox
    from agent_client.agent import Agent, AlreadyRunning, sole_use

    if not config.server or not config.key:
        raise ConfigError("no agent runs here and no server and key are configured")
    if not os.path.isdir(config.state_dir) and not os.access(
        os.path.dirname(config.state_dir) or ".", os.W_OK
    ):
        raise PermissionError(13, "Permission denied", config.state_dir)
    try:
        with sole_use(config.state_dir):
            agent = Agent(config)
            try:
                if "measurement" in item:
                    agent.take([inbox.point_of(item)], [])
                else:
                    agent.take([], [inbox.entry_of(item, time.time())])
                agent.sender.work(None, config.timeout)
                sent = agent.spool.waiting().reports == 0
            finally:
                agent.sender.close()
                agent.tailer.close()
                agent.spool.close()
    except AlreadyRunning:
        raise Failure("an agent runs here and does not answer: try again", STATE) from None
    return "sent" if sent else "kept"
