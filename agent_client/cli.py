"""The command line: `sentinella run`, `status`, `enrol`, `check-config`.

Exit codes: 0 all is well; 1 it is not (the reason is printed); 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from typing import Sequence

from agent_client import config as configuration
from agent_client.config import Config, ConfigError
from agent_client.spool import SpoolCorrupt, SpoolUnusable
from agent_client.wire import VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    verbs = {"run": _run, "status": _status, "enrol": _enrol, "check-config": _check_config}
    try:
        return verbs[options.verb](options)
    except ConfigError as error:
        return _say(str(error), 2)
    except (SpoolUnusable, SpoolCorrupt) as error:
        return _say(str(error), 1)
    except PermissionError as error:
        return _say(f"{error.filename}: {error.strerror}; run as root or set state_dir", 1)
    except OSError as error:
        return _say(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config", "-c", metavar="FILE", default=argparse.SUPPRESS,
        help=f"configuration file (default {configuration.DEFAULT_PATH})",
    )  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="sentinella", parents=[shared],
        description="Watches this server and reports to Sentinella.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"sentinella {VERSION}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = verbs.add_parser("run", parents=[shared], help="watch and report until stopped")
    run.add_argument("--once", action="store_true", help="send one report and end")
    status = verbs.add_parser(
        "status", parents=[shared], help="what it sees, what it sent, what waits"
    )
    status.add_argument("--json", action="store_true", help="the same as JSON")
    enrol = verbs.add_parser(
        "enrol", parents=[shared], help="turn a one-time token into this server's key"
    )
    enrol.add_argument("--server", metavar="URL", help="the Sentinella server")
    enrol.add_argument(
        "--token", metavar="TOKEN", help="the enrol token; `-` reads it from standard input"
    )
    verbs.add_parser("check-config", parents=[shared], help="say what the configuration means")
    return parser


def _load(options: argparse.Namespace) -> Config:
    return configuration.load(getattr(options, "config", None), os.environ)


def _run(options: argparse.Namespace) -> int:
    from agent_client.agent import Agent, AlreadyRunning, sole_use  # needs psutil; status does not

    config = _load(options)
    if not config.server or not config.key:
        missing = "server" if not config.server else "key"
        raise ConfigError(f"no {missing} is configured: `sentinella enrol --server URL --token …`")
    _log_to(config)
    for warning in config.warnings:
        logging.getLogger("sentinella").warning("%s", warning)
    try:
        with sole_use(config.state_dir):
            agent = Agent(config)
            if not options.once:
                agent.run()
                return 0
            if agent.once():
                return 0
            return _say(agent.sender.state.last_error or "not everything was sent", 1)
    except AlreadyRunning as error:
        return _say(str(error), 1)


def _log_to(config: Config) -> None:
    """Log to the file that is configured, else to standard error as systemd wants it."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if config.log_file:
        from logging.handlers import WatchedFileHandler  # a megabyte that few need

        try:  # one that logrotate moves away is made anew
            handler = WatchedFileHandler(config.log_file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"log_file {config.log_file}: {error.strerror}") from None
    logging.basicConfig(level=config.log_level, format=config.log_format, handlers=[handler])


def _enrol(options: argparse.Namespace) -> int:
    from agent_client.transport import Refused, enrol

    path = configuration.file_used(getattr(options, "config", None), os.environ)
    known = os.path.exists(path)
    environ = dict(os.environ)
    if options.server:
        environ["SENTINELLA_SERVER"] = options.server
    config = configuration.load(path if known else None, environ)
    token = options.token or os.environ.get("SENTINELLA_TOKEN", "")
    from_input = token == "-"  # noqa: S105 - the word for standard input
    if from_input:
        token = sys.stdin.readline().strip()
    if not config.server or not token:
        raise ConfigError("enrol needs --server URL and --token TOKEN")
    agent = configuration.agent_id(config.state_dir)
    try:
        key = enrol(config, token, agent)
    except Refused as refusal:
        if refusal.status in (401, 403):
            return _say(
                f"the token is not accepted ({refusal.detail}): it is good once and for an hour", 1
            )
        return _say(f"{config.server} answered {refusal}", 1)
    except OSError as error:
        return _say(f"{config.server} cannot be reached: {error}", 1)
    moved = config.state_dir if config.state_dir != configuration.DEFAULT_STATE_DIR else None
    configuration.write_private(path, configuration.with_enrolment(path, config.server, key, moved))
    sys.stdout.write(f"enrolled as {config.hostname}; the key is in {path}\n")
    return 0


def _check_config(options: argparse.Namespace) -> int:
    config = _load(options)
    lines = [
        f"server    {config.server or '(none: enrol first)'}",
        f"key       {'set' if config.key else '(none: enrol first)'}",
        f"state     {config.state_dir}",
        f"interval  {config.interval:g} s",
    ]
    for service in config.services:
        match = service.cmdline.pattern if service.cmdline else ", ".join(service.processes)
        lines.append(f"service   {service.name} ({service.project or 'no project'}): {match}")
    for source in config.logs:
        lines.append(f"log       {source.pattern} as {source.service}, {source.level} and worse")
    lines.extend(f"warning   {warning}" for warning in config.warnings)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _status(options: argparse.Namespace) -> int:
    from agent_client.status import gather, told

    status = gather(_load(options))
    problems: list[str] = status["problems"]
    if options.json:
        json.dump(status, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(told(status, time.time()))
    return 1 if problems else 0


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"sentinella: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
