"""MariaDB and MySQL, with Galera, by the client program that is on every database host."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from agent_client.collector import Points
from agent_client.collectors.listening import listening
from agent_client.collectors.pack import Pack

_PORT = 3306
_TIMEOUT = 4.0
_SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock")
_ASKED = (
    "show global status;"
    "show global variables where variable_name in ('max_connections', 'open_files_limit')"
)


class MariaDb(Pack):
    """Connections against their limit, threads, aborts, slow queries; of Galera, the cluster.

    With `defaults_file` of `[mariadb]` (a file of the client's form with user and password, which
    needs the right PROCESS only); an agent that runs as root needs none. Nobody knocks at the port
    without logging in: the server would count that as an error and shut the host out in the end.
    """

    name = "mariadb"

    def look(self, points: Points) -> None:
        defaults = self.config.packs.mariadb_defaults_file
        here = listening(_PORT) or any(map(os.path.exists, _SOCKETS))
        if not defaults and not here:
            points.nothing("no MariaDB or MySQL listens here, and [mariadb] names none")
            return
        if not defaults and os.geteuid() != 0:
            points.warn(
                "runs here, and the agent may not ask it: create a user with the right PROCESS and"
                " name the file with its password in [mariadb] defaults_file"
            )
            return
        program = _program()
        if program is None:
            points.warn("neither mariadb nor mysql, the client, is installed")
            return
        began = time.monotonic()
        try:
            said = _ask(program, defaults)
        except (OSError, ValueError) as error:
            points.add("mariadb", {"up": 0})
            points.warn(str(error))
            return
        points.add(
            "mariadb",
            {"up": 1, "answer_seconds": round(time.monotonic() - began, 4), **fields_of(said)},
        )


def _program() -> str | None:
    path = "/usr/bin:/usr/local/bin:/usr/sbin:/opt/mysql/bin"
    return shutil.which("mariadb", path=path) or shutil.which("mysql", path=path)


def _ask(program: str, defaults: str) -> dict[str, str]:
    """Names and values. Raises ValueError with what the client complains of."""
    words = [program]
    if defaults:
        if not os.access(defaults, os.R_OK):
            raise ValueError(f"{defaults}: cannot be read by the agent's user")
        words.append(f"--defaults-file={defaults}")
    words += ["--batch", "--skip-column-names", "--connect-timeout=3", f"--execute={_ASKED}"]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and all of it is ours
            words, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"no answer within {_TIMEOUT:g} s") from None
    if done.returncode:
        raise ValueError(" ".join(done.stderr.split())[:300] or f"exit code {done.returncode}")
    pairs = (line.partition("\t") for line in done.stdout.splitlines())
    return {name.lower(): value for name, _, value in pairs}


_FIELDS = {
    "uptime_seconds": "uptime",
    "connections": "threads_connected",
    "connections_limit": "max_connections",
    "connections_most": "max_used_connections",
    "threads_running": "threads_running",
    "open_files": "open_files",
    "questions": "questions",
    "slow_queries": "slow_queries",
    "aborted_clients": "aborted_clients",
    "aborted_connects": "aborted_connects",
    "refused_connections": "connection_errors_max_connections",
    "deadlocks": "innodb_deadlocks",
    "row_lock_waits": "innodb_row_lock_waits",
    "cluster_size": "wsrep_cluster_size",
    "receive_queue": "wsrep_local_recv_queue",
    "send_queue": "wsrep_local_send_queue",
    "certification_failures": "wsrep_local_cert_failures",
}
_SWITCHES = {
    "cluster_ready": ("wsrep_ready", "on"),
    "cluster_connected": ("wsrep_connected", "on"),
    "cluster_primary": ("wsrep_cluster_status", "primary"),
    "cluster_synced": ("wsrep_local_state_comment", "synced"),
}


def fields_of(said: dict[str, str]) -> dict[str, float | None]:
    """The fields of `show global status`; those of Galera only where it is in use."""
    found: dict[str, float | None] = {}
    galera = said.get("wsrep_provider_name", "") not in ("", "none")
    for name, key in _FIELDS.items():
        if key.startswith("wsrep_") and not galera:
            continue
        try:
            found[name] = float(said[key])
        except (KeyError, ValueError):
            continue  # of another version
    limit, used = found.get("connections_limit"), found.get("connections")
    if limit and used is not None:
        found["connections_percent"] = round(100.0 * used / limit, 3)
    if galera:
        for name, (key, wanted) in _SWITCHES.items():
            if key in said:
                found[name] = said[key].lower() == wanted
        paused = said.get("wsrep_flow_control_paused")
        if paused:
            found["flow_control_percent"] = round(100.0 * float(paused), 3)
    return found
