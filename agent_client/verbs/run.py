"""`sentinella run`: watch and report until stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
from typing import Iterator

import click

from agent_client.config import Config, ConfigError
from agent_client.masking import guard, masker_of
from agent_client.verbs.common import OK, SERVER, STATE, Failure, session, verb

_DESCRIPTORS = 16_384


@verb("run", as_json=False, short_help="Watch and report until stopped.")
@click.option("--once", is_flag=True, help="Send one report and end.")
def run(once: bool) -> int:
    """Watch and report until stopped, in the foreground.

    SIGTERM and SIGINT end it, SIGHUP reads the configuration again.
    """
    from agent_client.agent import Agent, AlreadyRunning, sole_use  # needs psutil

    config = session().load()
    if not config.server or not config.key:
        missing = "server" if not config.server else "key"
        raise ConfigError(f"no {missing} is configured: `sentinella enrol --server URL --token …`")
    log_to(config)
    for warning in config.warnings:
        logging.getLogger("sentinella").warning("%s", warning)
    try:
        with sole_use(config.state_dir), _pidfile(session().pidfile):
            agent = Agent(config)
            if not once:
                agent.run(session().load)
                return OK
            if agent.once():
                return OK
            raise Failure(agent.sender.state.last_error or "not everything was sent", SERVER)
    except AlreadyRunning as error:
        raise Failure(str(error), STATE) from None


def log_to(config: Config) -> None:
    """Log to the file that is configured, else to standard error as systemd wants it."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if config.log_file:
        from logging.handlers import WatchedFileHandler  # a megabyte that few need

        try:  # one that logrotate moves away is made anew
            handler = WatchedFileHandler(config.log_file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"log_file {config.log_file}: {error.strerror}") from None
    logging.basicConfig(level=config.log_level, format=config.log_format, handlers=[handler])
    guard(masker_of(config), [handler])
    # A core dump would hold the key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Each log that is followed is open; a host of many instances has more than the usual 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def _pidfile(path: str | None) -> Iterator[None]:
    """Keep the process id in a file for as long as the agent runs."""
    if path is None:
        yield
        return
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # somebody tidied up
            os.unlink(path)
