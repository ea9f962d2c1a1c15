"""`python -m sentinel_site.embedded run [--state-dir DIR] [--fast] -- CMD…`

Runs a command beside a PostgreSQL and a Valkey of its own, told to it by DATABASE_URL and
REDIS_URL, and ends with the command's status.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from sentinel_site.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey
from sentinel_site.embedded.process import spawn

PREFIX = "sentinella-run-"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sentinel_site.embedded")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run a command beside PostgreSQL and Valkey")
    run_parser.add_argument(
        "--state-dir", type=Path, help="kept; without it one is made and removed"
    )
    run_parser.add_argument("--fast", action="store_true", help="not durable; for tests")
    run_parser.add_argument("argv", nargs="+", metavar="CMD")
    options = parser.parse_args(arguments)
    try:
        return run(options.argv, options.state_dir, options.fast)
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(argv: list[str], state_dir: Path | None = None, fast: bool = False) -> int:
    """The command's exit status, as a shell gives it. Raises EmbeddedError."""
    with _signals_held() as held, _directory(state_dir) as directory, ExitStack() as stack:
        postgres = EmbeddedPostgres(directory, fast=fast)
        valkey = EmbeddedValkey(directory)
        stack.callback(postgres.stop, "immediate" if state_dir is None else "fast")
        stack.callback(valkey.stop)
        valkey.spawn()
        postgres.start()
        valkey.wait()
        environment = {
            "ENVIRONMENT": "test",
            **os.environ,
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "STATE_DIR": str(directory),
        }
        if held.arrived:
            return 128 + held.arrived
        try:
            child = spawn(
                argv,
                env=environment,
                cwd=Path.cwd(),
                output=None,
                stdin=None,
                own_group=False,  # of the terminal's group, so that Ctrl-C reaches it
            )
        except OSError as error:
            raise EmbeddedError(f"{argv[0]}: {error.strerror}") from error
        held.pass_on_to(child)
        status = child.wait()
        return status if status >= 0 else 128 - status


class _Held:
    """Signals that end us only after what we started has been stopped."""

    def __init__(self) -> None:
        self.arrived = 0
        self.child: subprocess.Popen[bytes] | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        self.arrived = number
        # the terminal sends Ctrl-C to the whole group by itself
        if self.child is not None and number != signal.SIGINT:
            self.child.send_signal(number)

    def pass_on_to(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        if self.arrived:
            child.send_signal(self.arrived)


@contextmanager
def _signals_held() -> Iterator[_Held]:
    held = _Held()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, held.handle) for number in numbers}
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _directory(state_dir: Path | None) -> Iterator[Path]:
    if state_dir is not None:
        state_dir.mkdir(parents=True, exist_ok=True)
        yield state_dir.resolve()
        return
    _remove_abandoned()
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (made / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove directories whose run was killed: nobody holds their lock any more."""
    for lock_path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/lock"):
        try:
            with lock_path.open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_path.parent, ignore_errors=True)
        except OSError:  # in use, another user's, or just being removed
            continue


if __name__ == "__main__":
    sys.exit(main())
