"""The process of one round: its task on standard input, what it found on standard output."""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import sys
import time
from typing import Any, Mapping

from agent_client.openstack import rounds
from agent_client.openstack.client import Cloud, identity, with_version

#: Seconds of wall clock after which a round ends, whatever the cloud does.
LONGEST = 120


def main() -> int:
    """Exit codes: 0 with an answer; 2 if the task or the credentials cannot be used."""
    task = json.load(sys.stdin)
    signal.alarm(int(task.get("seconds", LONGEST)))
    os.nice(10)
    logging.disable(logging.CRITICAL)  # libraries would write addresses and headers
    answer, code = work(task)
    json.dump(answer, sys.stdout)
    return code


def work(task: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The answer to a task, and the exit code that goes with it."""
    began = time.monotonic()
    try:
        importlib.import_module("openstack.config")
    except ModuleNotFoundError:
        return {"missing": "openstacksdk"}, 2
    said = task["openstack"]
    try:
        region = _region(said)
        session = region.get_session()
    except Exception as error:  # openstacksdk's, yaml's, keystoneauth's
        return {"error": f"the credentials cannot be used: {_first_line(error)}"}, 2
    place = identity(str(region.config.get("auth", {}).get("auth_url", "")))
    if task.get("verb") == "resolve":
        return {"identity": place}, 0
    cloud = Cloud(
        session,
        region=region.region_name or "",
        interface=region.get_interface() or "public",
        budget=task["budget"],
    )
    cloud.ca_file = said.get("ca_file", "")
    user = said.get("application_credential_id") or said.get("user") or said.get("cloud")
    state = rounds.State.read(task["state"], f"{place} {user}")
    done = rounds.run(cloud, state, rounds.now()).to_json()
    try:
        state.write()
    except OSError as error:
        done["error"] = f"{task['state']}: {error.strerror}"
    used = resource.getrusage(resource.RUSAGE_SELF)
    done["usage"] = {
        "seconds": round(time.monotonic() - began, 3),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "memory": used.ru_maxrss * 1024,
        "calls": cloud.calls,
    }
    return done, 0


def _region(said: Mapping[str, Any]) -> Any:
    """The cloud as openstacksdk knows it: of a clouds.yaml, or of the settings given."""
    from openstack.config import OpenStackConfig

    files = [said["clouds_file"]] if said.get("clouds_file") else None
    more: dict[str, Any] = {"api_timeout": 10}
    if said.get("region"):
        more["region_name"] = said["region"]
    if said.get("interface"):
        more["interface"] = said["interface"]
    if said.get("ca_file"):
        more["cacert"] = said["ca_file"]
    if said.get("cloud"):
        return OpenStackConfig(config_files=files, load_envvars=False).get_one(
            cloud=said["cloud"], **more
        )
    if said.get("application_credential_id"):
        more["auth_type"] = "v3applicationcredential"
        auth = {
            "application_credential_id": said["application_credential_id"],
            "application_credential_secret": said["application_credential_secret"],
        }
    else:
        more["auth_type"] = "v3password"
        auth = {
            "username": said["user"],
            "password": said["password"],
            "project_name": said["project"],
            "user_domain_name": said["user_domain"],
            "project_domain_name": said["project_domain"],
        }
    auth["auth_url"] = with_version(said["auth_url"])
    return OpenStackConfig(config_files=[], load_envvars=False).get_one(auth=auth, **more)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
