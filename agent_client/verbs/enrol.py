"""`sentinella enrol`: turn a one-time token into this server's key."""

from __future__ import annotations

import os
import sys

import click

from agent_client import config as configuration
from agent_client.config import Config, ConfigError
from agent_client.config_changes import with_enrolment
from agent_client.identity import agent_id
from agent_client.private_files import write_private
from agent_client.verbs.common import OK, SERVER, Failure, say, say_json, session, verb


@verb("enrol", short_help="Turn a one-time token into this server's key.")
@click.option("--server", metavar="URL", help="The Sentinella server.")
@click.option("--token", metavar="TOKEN", help="The enrol token; `-` reads it from standard input.")
def enrol(server: str | None, token: str | None, as_json: bool) -> int:
    """Turn a one-time token into this server's own key and write it to the configuration.

    The token may also come in SENTINELLA_TOKEN.
    """
    path = session().path
    environ = dict(os.environ)
    environ.pop("SENTINELLA_CONFIG", None)
    if server:
        environ["SENTINELLA_SERVER"] = server
    config = configuration.load(path if os.path.exists(path) else None, environ)
    token = read_token(token)
    if not config.server or not token:
        raise ConfigError("enrol needs --server URL and --token TOKEN")
    key = key_for(config, token)
    moved = config.state_dir if config.state_dir != configuration.DEFAULT_STATE_DIR else None
    write_private(path, with_enrolment(path, config.server, key, moved))
    if as_json:
        say_json({"host": config.hostname, "server": config.server, "config": path})
    else:
        say(f"enrolled as {config.hostname}; the key is in {path}")
    return OK


def read_token(token: str | None) -> str:
    """The token that is meant: given, of the environment, or of standard input."""
    token = token or os.environ.get("SENTINELLA_TOKEN", "")
    if token == "-":  # noqa: S105 - the word for standard input
        token = sys.stdin.readline().strip()
    return token


def key_for(config: Config, token: str) -> str:
    """Spend the token on this server's key. Raises Failure."""
    from agent_client import transport

    try:
        return transport.enrol(config, token, agent_id(config.state_dir))
    except transport.Refused as refusal:
        if refusal.status in (401, 403):
            raise Failure(
                f"the token is not accepted ({refusal.detail}): it is good once and for an hour",
                SERVER,
            ) from None
        raise Failure(f"{config.server} answered {refusal}", SERVER) from None
    except PermissionError:
        raise
    except OSError as error:
        raise Failure(f"{config.server} cannot be reached: {error}", SERVER) from None
