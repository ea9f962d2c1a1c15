"""What the verbs share: the options before them, how they print, how they end."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any, Callable

import click

from agent_client import config as configuration
from agent_client.config import Config

#: Exit codes, as docs/agent.md explains them.
OK, PROBLEM, USAGE, SERVER, PERMISSION, STATE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


class Failure(Exception):
    """A verb that could not do its work: one line for the person, a code for the script."""

    def __init__(self, text: str, code: int = PROBLEM) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass
class Session:
    """What was said before the verb."""

    config_path: str | None = None
    pidfile: str | None = None

    @property
    def path(self) -> str:
        """The configuration file that is meant, there or not."""
        return configuration.file_used(self.config_path, os.environ)

    def load(self) -> Config:
        """The configuration. Raises ConfigError."""
        return configuration.load(self.config_path, os.environ)


def session() -> Session:
    """Of the verb that runs."""
    found = click.get_current_context().find_object(Session)
    assert found is not None  # noqa: S101 - the program has made it
    return found


def _take_config(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        context.ensure_object(Session).config_path = value


def verb(
    name: str, *, as_json: bool = True, **settings: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of the program; `--config` may follow it too, `--json` is everywhere."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        command: Any = click.command(name, **settings)
        made: click.Command = command(function)
        made.params.append(
            click.Option(["--config", "-c"], expose_value=False, hidden=True, callback=_take_config)
        )
        if as_json:
            made.params.append(json_option())
        return made

    return decorate


def json_option() -> click.Option:
    """`--json`, handed to the verb as `as_json`."""
    return click.Option(["--json", "as_json"], is_flag=True, help="The same as JSON.")


def say(text: str) -> None:
    """The result of a verb, to standard output."""
    click.echo(text)


def say_json(value: Any) -> None:
    """The result of a verb for a program."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def complain(text: str) -> None:
    """One line to standard error."""
    click.echo(f"sentinella: {' '.join(text.split())}", err=True)


def is_asked() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
