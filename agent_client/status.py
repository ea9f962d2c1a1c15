"""What `sentinella status` says: what the agent sees, what it sent, what waits."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from typing import Any

from agent_client.config import Config
from agent_client.spool import SpoolCorrupt, SpoolUnusable, peek


def gather(config: Config) -> dict[str, Any]:
    """All of it as plain values; `problems` names what needs a person. Raises PermissionError."""
    path = os.path.join(config.state_dir, "status.json")
    said: dict[str, Any] = {}
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
    except FileNotFoundError:
        pass  # it never ran: said below
    except ValueError:
        said = {}
    running = _is_held(os.path.join(config.state_dir, "lock"))
    said["running"] = running
    problems: list[str] = []
    if not running:
        problems.append(
            "no agent is running" if said.get("cycles") else f"it never ran in {config.state_dir}"
        )
    if said.get("problem"):
        problems.append(said["problem"])
    problems.extend(config.warnings)
    try:
        seen = peek(config.state_dir)
    except (SpoolCorrupt, SpoolUnusable) as error:
        seen = None
        problems.append(f"the spool cannot be read: {error}")
    if seen is not None:
        waiting, losses, sent = seen
        said["waiting"] = dataclasses.asdict(waiting)
        said["losses"] = dataclasses.asdict(losses)
        said["sent"] = sent
    for kind in ("collectors", "logs", "plugins"):
        for state in said.get(kind, []):
            if not state["ok"]:
                name = state.get("name") or state.get("path")
                problems.append(f"{name}: {state['detail']}")
    sending = said.get("sending") or {}
    if sending.get("retry_at"):
        problems.append(sending["last_error"])
    said["problems"] = problems
    return said


def told(status: dict[str, Any], now: float) -> str:
    """The same for a person, one line a thing."""
    lines = []
    state = f"running (pid {status.get('pid')})" if status["running"] else "not running"
    lines.append(f"agent     {state}, version {status.get('version', '?')}")
    if status.get("agent"):
        lines.append(f"id        {status['agent']} on {status['host']}")
        lines.append(f"server    {status['server']}, every {status['interval']:g} s")
        lines.append(
            f"seen      {status['points']} points, {_ago(status.get('last_cycle_at'), now)}, "
            f"in {status['cycle_seconds']:.2f} s"
        )
    if status.get("settings"):
        lines.append(f"settings  version {status['settings']} of the server")
    sending = status.get("sending") or {}
    if sending or "sent" in status:
        lines.append(
            f"sent      {status.get('sent', 0)} reports, last "
            f"{_ago(sending.get('last_success_at'), now)}"
        )
    waiting = status.get("waiting")
    if waiting:
        since = f", oldest of {_ago(waiting['oldest_at'], now)}" if waiting["reports"] else ""
        lines.append(f"waiting   {waiting['reports']} reports, {_size(waiting['bytes'])}{since}")
    losses = status.get("losses") or {}
    if any(losses.values()):
        lines.append(
            f"lost      {losses['reports']} reports dropped ({losses['points']} points, "
            f"{losses['events']} events), {losses['rejected']} items rejected"
        )
    if sending.get("last_error"):
        lines.append(
            f"error     {sending['last_error']} ({_ago(sending.get('last_error_at'), now)})"
        )
    for collector in status.get("collectors", []):
        mark = "ok" if collector["ok"] else "FAILS"
        said = collector["detail"] or collector.get("idle")
        detail = f"  {said}" if said else ""
        lines.append(
            f"collector {collector['name']:<10} {mark:<6}{collector['points']:>4} points  "
            f"{collector['seconds'] * 1000:7.1f} ms{detail}"
        )
    for log in status.get("logs", []):
        mark = "ok" if log["ok"] else "FAILS"
        detail = f"  {log['detail']}" if log["detail"] else ""
        behind = f", {_size(log['behind'])} unread" if log["behind"] else ""
        lines.append(f"log       {log['path']}  {mark}  {log['events']} events{behind}{detail}")
    for plugin in status.get("plugins", []):
        detail = f"  {plugin['detail']}" if plugin["detail"] else ""
        lines.append(
            f"plugin    {plugin['name']}  {plugin['state']}  {plugin['pushes']} pushes, "
            f"{plugin['restarts']} restarts{detail}"
        )
        lines.extend(f"          not enforced: {one}" for one in plugin["missing"])
    lines.extend(f"problem   {problem}" for problem in status["problems"])
    return "\n".join(lines) + "\n"


def _ago(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    seconds = max(0.0, now - at)
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _size(amount: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _is_held(lock: str) -> bool:
    """Whether an agent holds the lock of its state directory."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
