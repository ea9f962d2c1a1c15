"""`sentinella maintenance` and `blackout`: say on the host itself what is going on."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from agent_client import config as configuration
from agent_client.config import ConfigError
from agent_client.verbs.common import OK, SERVER, Failure, say, say_json, session, verb
from agent_client.wire import SUPPRESSION_PATH

_ARGUMENTS = (
    click.argument("span", required=False),
    click.argument("reason", required=False),
    click.option("--end", is_flag=True, help="End it before its time."),
)


def _arguments(function: Any) -> Any:
    for argument in reversed(_ARGUMENTS):
        function = argument(function)
    return function


@verb("maintenance", short_help='Planned work here: maintenance 20m "why".')
@_arguments
def maintenance(span: str | None, reason: str | None, end: bool, as_json: bool) -> int:
    """Planned work: for this span alerts are recorded as suppressed, nobody is told, uptime stands.

    Example: sentinella maintenance 20m "kernel update"; over early: sentinella maintenance end
    """
    return _say_so("maintenance", span, reason, end, as_json)


@verb("blackout", short_help='Someone is at it: blackout 1h "why".')
@_arguments
def blackout(span: str | None, reason: str | None, end: bool, as_json: bool) -> int:
    """Someone is at it: for this span alerts open as usual, nobody is told, uptime counts.

    Example: sentinella blackout 1h "disk is being changed"; over early: sentinella blackout end
    """
    return _say_so("blackout", span, reason, end, as_json)


def _say_so(kind: str, span: str | None, reason: str | None, end: bool, as_json: bool) -> int:
    from agent_client.transport import Client, Refused

    end = end or (span == "end" and reason is None)
    config = session().load()
    if not config.server or not config.key:
        raise ConfigError("no server and key are configured: `sentinella enrol` first")
    if end:
        path, body = SUPPRESSION_PATH + "/end", {"kind": kind}
    else:
        path, body = SUPPRESSION_PATH, _wanted(kind, span, reason)
    client = Client(config)
    try:
        _, content = client.post(path, json.dumps(body).encode(), config.key)
        answer = json.loads(content)
        until = time.localtime(answer["until"] or 0.0)
    except Refused as refusal:
        raise Failure(f"{config.server} refuses: {refusal.detail}", SERVER) from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise Failure(f"{config.server} is no Sentinella server that knows this", SERVER) from None
    except OSError as error:
        raise Failure(f"{config.server} cannot be reached: {error}", SERVER) from None
    finally:
        client.close()
    if as_json:
        say_json(answer)
    elif end:
        say(f"{kind} has ended" if answer.get("ended") else f"there was no {kind}")
    else:
        at = time.strftime("%Y-%m-%d %H:%M:%S %Z", until)
        say(f"{config.hostname} is in {kind} until {at}")
    return OK


def _wanted(kind: str, span: str | None, reason: str | None) -> dict[str, Any]:
    if not span or not (reason or "").strip():
        raise click.UsageError(f'how long and why? sentinella {kind} 20m "kernel update"')
    try:
        seconds = configuration.span(span)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if seconds <= 0:
        raise click.UsageError("the span must be longer than 0")
    return {"kind": kind, "seconds": seconds, "reason": reason}
