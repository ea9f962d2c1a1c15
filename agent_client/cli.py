"""The command line: `sentinella [--config FILE] [--pidfile FILE] VERB`.

A verb's module is imported when the verb is called, so that `run` holds in memory what it needs
and no more. Exit codes: 0 all is well · 1 something is wrong, and said · 2 usage or configuration ·
3 the server cannot be reached or refuses · 4 not permitted on this host · 5 another agent or a
spool is in the way · 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sqlite3
import sys
from typing import Sequence

import click

from agent_client.config import DEFAULT_PATH, ConfigError
from agent_client.verbs.common import (
    INTERRUPTED,
    OK,
    PERMISSION,
    PROBLEM,
    SERVER,
    STATE,
    USAGE,
    Failure,
    Session,
    complain,
)
from agent_client.wire import VERSION

#: Verb to the module that has it, in the order of `--help`.
VERBS = {
    "init": "agent_client.verbs.init",
    "enrol": "agent_client.verbs.enrol",
    "run": "agent_client.verbs.run",
    "status": "agent_client.verbs.status",
    "discover": "agent_client.verbs.discover",
    "doctor": "agent_client.verbs.doctor",
    "check": "agent_client.verbs.check",
    "check-config": "agent_client.verbs.check_config",
    "tail": "agent_client.verbs.tail",
    "send": "agent_client.verbs.send",
    "maintenance": "agent_client.verbs.suppression",
    "blackout": "agent_client.verbs.suppression",
    "show": "agent_client.verbs.plugins",
    "enable": "agent_client.verbs.plugins",
    "disable": "agent_client.verbs.plugins",
    "clear": "agent_client.verbs.plugins",
    "completion": "agent_client.verbs.completion",
}


class Program(click.Group):
    """Finds its verbs by name and imports them when they are wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name])
        found = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command)  # noqa: S101 - what the table promises
        return found


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)
@click.option("--config", "-c", metavar="FILE", help=f"Configuration (default {DEFAULT_PATH}).")
@click.option("--pidfile", "-p", metavar="FILE", help="Where `run` leaves its process id.")
@click.version_option(VERSION, prog_name="sentinella")
@click.pass_context
def program(context: click.Context, config: str | None, pidfile: str | None) -> None:
    """Watches this server and reports to Sentinella."""
    context.obj = Session(config, pidfile)
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = program.main(args=words, prog_name="sentinella", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except click.ClickException as error:
        complain(error.format_message())
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Failure as failure:
        complain(str(failure))
        return failure.code
    except ConfigError as error:
        complain(str(error))
        return USAGE
    except BrokenPipeError:  # `sentinella status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PROBLEM
    except Exception as error:
        return _told(error)


def _told(error: Exception) -> int:
    """What stopped a verb, in one line; a fault of our own keeps its traceback."""
    from agent_client.spool import SpoolCorrupt, SpoolUnusable
    from agent_client.transport import Refused

    if isinstance(error, (SpoolUnusable, SpoolCorrupt, sqlite3.Error)):
        complain(str(error))
        return STATE
    if isinstance(error, Refused):
        complain(f"the server answered {error}")
        return SERVER
    if isinstance(error, PermissionError):
        mend = "; run as root or as the agent's user, or set state_dir to a folder of your own"
        mend = mend if error.errno == errno.EACCES else ""
        complain(f"{error.filename}: {error.strerror}{mend}")
        return PERMISSION
    if isinstance(error, OSError):
        complain(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
        return PROBLEM
    raise error


if __name__ == "__main__":
    sys.exit(main())
