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


def say(text: str, lead: str = "") -> None:
    """The result of a verb, to standard output; `lead` is our own and may be coloured.

    What logs and processes say of themselves does nothing to a terminal: it is shown.
    """
    click.echo(lead + (visible(text) if sys.stdout.isatty() else text))


def say_json(value: Any, indent: int | None = 2) -> None:
    """The result of a verb for a program; times in ISO 8601, UTC."""
    # JSON leaves the controls above 127 as they are, which a terminal obeys as well.
    escaped = sys.stdout.isatty()
    click.echo(json.dumps(iso_times(value), indent=indent, ensure_ascii=escaped))


def complain(text: str) -> None:
    """One line to standard error."""
    line = " ".join(text.split())
    click.echo(f"sentinella: {visible(line) if sys.stderr.isatty() else line}", err=True)


def visible(text: str, keep: str = "\n\t") -> str:
    """Control characters, and what turns the direction of writing, as escapes: `\\x1b`.

    What is left cannot move the cursor, name a window or hide a text.
    """
    if text.isprintable():
        return text
    return "".join(one if one in keep else _shown(one) for one in text)


def _shown(character: str) -> str:
    import unicodedata  # a megabyte, which `run` does not need

    if unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def each_on_a_line(value: Any) -> Any:
    """The same with every text on one line, for a terminal: a name cannot forge the next line."""
    if isinstance(value, dict):
        return {key: each_on_a_line(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [each_on_a_line(one) for one in value]
    if isinstance(value, str) and sys.stdout.isatty():
        return visible(value, keep="")
    return value


def iso_times(value: Any, name: str = "") -> Any:
    """Unix seconds of every field that is a time (`at`, `until`, `…_at`) as ISO 8601, UTC."""
    if isinstance(value, dict):
        return {key: iso_times(one, str(key)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [iso_times(one, name) for one in value]
    is_time = name in ("at", "until") or name.endswith("_at")
    if is_time and isinstance(value, (int, float)) and not isinstance(value, bool):
        return iso(value)
    return value


def iso(at: float) -> str:
    """`2026-11-22T14:03:07.250Z`, to the millisecond; a time no calendar has, as the number."""
    import datetime

    try:
        moment = datetime.datetime.fromtimestamp(round(at, 3), datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return str(at)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_asked() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
