"""What the cloud's APIs say, asked by one host of each cloud."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Mapping

import agent_client
from agent_client.collector import Collector, News, Points
from agent_client.identity import agent_id
from agent_client.openstack import rounds
from agent_client.openstack.client import identity
from agent_client.transport import Client, Refused
from agent_client.wire import LEASE_PATH

if TYPE_CHECKING:
    from agent_client.config import Config

log = logging.getLogger("sentinella.openstack")

#: Calls that the APIs get from us, at most, in one minute.
CALLS_PER_MINUTE = 90
#: A round that takes longer is ended.
_LONGEST_ROUND = 120.0
_SYSTEM_PYTHON = "/usr/bin/python3"
_LONGEST_LEASE = 3 * 86_400.0
#: Variables that hold secrets of ours or of a person's shell, and are not for the process.
_NOT_INHERITED = ("SENTINELLA_", "OS_")


class SdkMissing(Exception):
    """This Python has no openstacksdk."""


class OpenStackApi(Collector):
    """Services, hypervisors, instances, networks, volumes, quotas and endpoints, by the APIs.

    A round is a process of its own, once each `interval` of `[openstack]`, and costs the agent
    itself nothing; its points come with the cycle after its end. What it used is in
    `openstack_round`. Only the agent that holds the cloud's lease asks.
    """

    name = "openstack"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._next_at = 0.0
        self._thread: threading.Thread | None = None
        self._answer: Mapping[str, Any] | None = None
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        super().reconfigure(config)
        #: The identity URL; a cloud of a clouds.yaml has it there, where only the process reads.
        said = config.openstack
        self._identity = "" if said.cloud else identity(said.auth_url)
        self._lease = Lease(config)
        own = [sys.executable] if sys.executable else []
        system = [_SYSTEM_PYTHON] if os.access(_SYSTEM_PYTHON, os.X_OK) else []
        self._pythons = tuple(dict.fromkeys(own + system))

    def collect(self, points: Points) -> None:
        if not self.config.openstack.enabled:
            points.nothing("no cloud is named in [openstack]")
            return
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            answer, self._answer = self._answer, None
            if answer is not None:
                self._add(answer, points)
            if answer is not None and answer.get("again") is not None:
                self._next_at = min(self._next_at, time.monotonic() + answer["again"])
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + self.config.openstack.interval
            self._thread = threading.Thread(target=self._work, name="openstack", daemon=True)
            self._thread.start()

    def settle(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    # In a thread: what takes long

    def _work(self) -> None:
        try:
            self._answer = self._round()
        except Exception as error:  # the collector says it with the next cycle
            log.debug("a round failed", exc_info=True)
            self._answer = {"error": f"{type(error).__name__}: {error}"}

    def _round(self) -> Mapping[str, Any]:
        if not self._identity:
            self._identity = self._run({"verb": "resolve"}).get("identity", "")
        held, why = self._lease.held(self._identity, self.config.openstack.interval)
        if not held:
            return {"not_held": why, "again": self._lease.again}
        minutes = min(self.config.openstack.interval, 60.0) / 60.0
        return self._run(
            {
                "verb": "round",
                "budget": max(1, int(CALLS_PER_MINUTE * minutes)),
                "state": os.path.join(self.config.state_dir, "openstack.json"),
                "seconds": _LONGEST_ROUND,
            }
        )

    def _run(self, task: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the process answers. Raises RuntimeError where it gives no good answer.

        Where the agent's own Python has no openstacksdk, the distribution's may have it.
        """
        for python in self._pythons:
            try:
                answer = self._run_with(python, task)
            except SdkMissing:
                continue
            self._pythons = (python,)
            return answer
        raise RuntimeError(
            "openstacksdk is missing: apt install python3-openstacksdk,"
            " or pip install 'sentinella-agent[openstack]'"
        )

    def _run_with(self, python: str, task: Mapping[str, Any]) -> Mapping[str, Any]:
        process = subprocess.Popen(  # noqa: S603 - no shell, and all of it is ours
            [python, "-m", "agent_client.openstack"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            cwd="/",
        )
        told = {"openstack": dataclasses.asdict(self.config.openstack), **task}
        try:
            said, complaint = process.communicate(json.dumps(told).encode(), _LONGEST_ROUND + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise RuntimeError(f"the round took longer than {_LONGEST_ROUND:g} s") from None
        try:
            answer = json.loads(said)
        except ValueError:
            lines = complaint.decode("utf-8", "replace").strip().splitlines()
            last = lines[-1][:300] if lines else f"exit code {process.returncode}"
            raise RuntimeError(f"the round's process failed: {last}") from None
        if not isinstance(answer, dict):
            raise RuntimeError(f"the round's process answered {type(answer).__name__}")
        if answer.get("missing"):
            raise SdkMissing(python)
        if process.returncode:
            raise RuntimeError(answer.get("error", f"exit code {process.returncode}"))
        return answer

    # With the next cycle

    def _add(self, answer: Mapping[str, Any], points: Points) -> None:
        tags = {"cloud": self._cloud_name()}
        if "not_held" in answer:
            points.add("openstack_round", {"lease": 0}, tags)
            if answer["not_held"]:
                points.warn(answer["not_held"])
            return
        if "outcomes" not in answer:
            points.add("openstack_round", {"ok": 0, "lease": 1}, tags)
            points.warn(answer["error"])
            return
        failed = 0
        for measurement, fields, more in rounds.points_of(answer, tags["cloud"], rounds.now()):
            points.add(measurement, fields, more)
        for one in answer["outcomes"]:
            if one["result"] in ("failed", "empty"):
                failed += 1
            if one["result"] not in ("ok", "not there") and one["reason"] != "no token":
                points.warn(f"{one['part']}: {one['reason']}")
        for level, text, service in answer["events"]:
            points.tell(News(level, text, service, "sentinella.openstack"))
        used = answer["usage"]
        points.add(
            "openstack_round",
            {
                "ok": not failed,
                "lease": 1,
                "failed_parts": failed,
                "calls": used["calls"],
                "seconds": used["seconds"],
                "cpu_seconds": used["cpu_seconds"],
                "memory_bytes": used["memory"],
            },
            tags,
        )
        if answer.get("error"):
            points.warn(answer["error"])

    def _cloud_name(self) -> str:
        said = self.config.openstack
        return said.cloud or self._identity.partition("://")[2].rstrip("/") or "openstack"


class Lease:
    """The right to ask a cloud's APIs: one agent of the organization has it at a time.

    While the server does not answer, a lease that was held goes on to its end and none is taken.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._until = 0.0  # monotonic
        #: In how many seconds the server would be asked again, where it refused for the moment.
        self.again: float | None = None

    def held(self, cloud: str, interval: float) -> tuple[bool, str]:
        """Whether this agent may ask now, and if not for a fault: which."""
        asked = {"cloud": cloud, "agent": agent_id(self._config.state_dir)}
        body = json.dumps({**asked, "seconds": min(3 * interval, _LONGEST_LEASE)}).encode()
        client = Client(self._config)
        asked_at = time.monotonic()
        self.again = None
        try:
            _status, content = client.post(LEASE_PATH, body, self._config.key)
            answer = json.loads(content)
        except Refused as refusal:
            if refusal.status == 404:
                return True, ""  # a server of before the lease: every host asks
            if refusal.status == 403 and refusal.retry_after is not None:
                # It has not seen this agent's first report yet.
                self.again = refusal.retry_after
                return False, ""
            return self._by_itself(f"the lease of the cloud: {refusal}")
        except (OSError, ValueError) as error:
            return self._by_itself(f"the lease of the cloud: {error}")
        finally:
            client.close()
        if not answer.get("held"):
            self._until = 0.0
            return False, ""
        self._until = asked_at + float(answer.get("seconds", 3 * interval))
        return True, ""

    def _by_itself(self, why: str) -> tuple[bool, str]:
        if time.monotonic() < self._until:
            return True, ""
        return False, why


def _environment() -> dict[str, str]:
    """This process' environment without secrets, and with the agent itself on Python's path."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
    }
    package = os.path.dirname(os.path.abspath(agent_client.__file__))
    kept["PYTHONPATH"] = os.pathsep.join(
        [os.path.dirname(package), *filter(None, [kept.get("PYTHONPATH")])]
    )
    return kept
