"""What `sentinella discover` says: what was found, how, and what is uncertain."""

from __future__ import annotations

from typing import Any

from agent_client.config import Config
from agent_client.discovery.evidence import how, uncertain
from agent_client.discovery.host import Host
from agent_client.discovery.look import Discovery, Found
from agent_client.discovery.memory import Memory
from agent_client.masking import Masker, masker_of


def discover(config: Config, host: Host | None = None) -> dict[str, Any]:
    """Look once at everything, change nothing. Raises OSError where no process can be listed."""
    discovery = Discovery(config, host, pause=lambda seconds: None)
    services = discovery.look()
    facts = discovery.facts()
    mask = masker_of(config)  # a command line may hold a password
    openstack = facts.get("openstack", {})
    return {
        "role": facts["role"],
        "release": openstack.get("release", ""),
        "version": openstack.get("version", ""),
        "release_evidence": openstack.get("evidence", ""),
        "projects": openstack.get("projects", {}),
        "containers": facts.get("containers", {}),
        "services": [_service(discovery, found, mask) for found in services],
        "logs": [
            {"service": source.service, "kind": source.kind, "from": source.pattern}
            for source in discovery.sources
        ],
        "uncertain": uncertain(discovery),
        "processes": discovery.table.count,
    }


def _service(discovery: Discovery, found: Found, mask: Masker) -> dict[str, Any]:
    return {
        "name": found.name,
        "project": found.project,
        "state": found.state,
        "detail": found.detail,
        "workers": len(found.members),
        "pids": [stat.pid for stat in found.mains],
        "how": [mask(line) for line in how(discovery, found)],
    }


def told(said: dict[str, Any]) -> str:
    """The same for a person, one line a thing."""
    release = said["release"] or "no OpenStack release known"
    if said["release"] and said["version"]:
        release += f" (nova {said['version']})"
    lines = [
        f"role      {said['role'] or 'none of OpenStack'}",
        f"release   {release}",
    ]
    if said["release_evidence"]:
        lines.append(f"evidence  {said['release_evidence']}")
    for project, version in said["projects"].items():
        lines.append(f"version   {project} {version}")
    if said["containers"]:
        lines.append("container {running} running of {total}".format(**said["containers"]))
    for service in said["services"]:
        workers = f"{service['workers']} processes" if service["workers"] else service["detail"]
        lines.append(
            f"service   {service['name']} ({service['project'] or 'no project'})  "
            f"{service['state']}  {workers}"
        )
        lines.extend(f"            by {how}" for how in service["how"])
    for source in said["logs"]:
        what = "" if source["kind"] == "file" else f"{source['kind']} "
        lines.append(f"log       {what}{source['from']} as {source['service']}")
    if not said["services"]:
        lines.append(f"service   none among {said['processes']} processes")
    lines.extend(f"uncertain {doubt}" for doubt in said["uncertain"])
    return "\n".join(lines) + "\n"


def forget(config: Config, name: str) -> bool:
    """No longer expect a service that is down; False if it is not known.

    A running agent takes notice in its next cycle; a service that still runs is found again.
    Raises OSError.
    """
    memory = Memory(config.state_dir)
    if not memory.forget(name):
        return False
    memory.save()
    return True
