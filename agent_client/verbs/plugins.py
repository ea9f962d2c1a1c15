"""`sentinella show`, `enable`, `disable`, `clear`: which plugins run."""

from __future__ import annotations

from typing import Sequence

import click

from agent_client import plugin_modules
from agent_client.config import Config
from agent_client.config_changes import with_plugins
from agent_client.private_files import write_private
from agent_client.verbs.common import OK, PROBLEM, complain, say, say_json, session, verb

_RELOAD = "a running agent takes it up with `systemctl reload sentinella` (SIGHUP)"


@verb("show", short_help="The plugins that are enabled.")
def show(as_json: bool) -> int:
    """The plugins that are enabled, a line a module."""
    plugins = session().load().plugins
    if as_json:
        say_json({module: list(names) for module, names in plugins.items()})
    elif plugins:
        for module, names in plugins.items():
            say(f"module: {module} - functions: {', '.join(names)}")
    else:
        say("no plugin is enabled")
    return OK


@verb("enable", short_help="Let plugins run: enable MODULE=F1,F2 ...")
@click.argument("wanted", nargs=-1, required=True, metavar="MODULE=F1,F2...")
def enable(wanted: Sequence[str], as_json: bool) -> int:
    """Let these functions of these modules run as plugins.

    Says which module or function does not exist, enables the others, and ends with exit code 1.
    """
    config = session().load()
    plugins = {module: list(names) for module, names in config.plugins.items()}
    problems = []
    for module, names in _parsed(wanted):
        file = plugin_modules.locate(module, config.plugin_paths)
        if file is None:
            problems.append(f"there is no module {module} below {', '.join(config.plugin_paths)}")
            continue
        try:
            there = plugin_modules.functions(file)
        except (SyntaxError, ValueError, OSError) as error:
            problems.append(f"{file} cannot be read as Python: {error}")
            continue
        problems.extend(f"{module} has no function {name}" for name in names if name not in there)
        found = [name for name in names if name in there]
        if found:
            before = plugins.setdefault(module, [])
            before.extend(name for name in found if name not in before)
    return _keep(config, plugins, problems, as_json)


@verb("disable", short_help="Let plugins no longer run: disable MODULE=F1,F2 ...")
@click.argument("unwanted", nargs=-1, required=True, metavar="MODULE=F1,F2...")
def disable(unwanted: Sequence[str], as_json: bool) -> int:
    """Let these functions no longer run; a module left with none is taken out."""
    config = session().load()
    plugins = {module: list(names) for module, names in config.plugins.items()}
    problems = []
    for module, names in _parsed(unwanted):
        for name in names:
            if name in plugins.get(module, []):
                plugins[module].remove(name)
            else:
                problems.append(f"{module}={name} was not enabled")
        if not plugins.get(module, True):
            del plugins[module]
    return _keep(config, plugins, problems, as_json)


@verb("clear", short_help="Let no plugin run any more.")
def clear(as_json: bool) -> int:
    """Disable every plugin."""
    return _keep(session().load(), {}, [], as_json)


def _parsed(said: Sequence[str]) -> list[tuple[str, list[str]]]:
    parsed = []
    for text in said:
        module, equals, names = text.partition("=")
        functions = [name.strip() for name in names.split(",") if name.strip()]
        if not equals or not module or not functions:
            raise click.UsageError(f"{text!r} is not written MODULE=FUNCTION[,FUNCTION]")
        parsed.append((module, functions))
    return parsed


def _keep(
    config: Config, plugins: dict[str, list[str]], problems: Sequence[str], as_json: bool
) -> int:
    before = {module: list(names) for module, names in config.plugins.items()}
    if plugins != before:
        path = session().path
        write_private(path, with_plugins(path, plugins))
    for problem in problems:
        complain(problem)
    if as_json:
        say_json({"plugins": plugins, "changed": plugins != before, "problems": list(problems)})
    elif plugins != before:
        say(f"enabled: {', '.join(sorted(plugins)) or 'none'}; {_RELOAD}")
    else:
        say("nothing to change")
    return PROBLEM if problems else OK
