"""`sentinella check-config`: say what the configuration means."""

from __future__ import annotations

from typing import Any

from agent_client.config import Config
from agent_client.verbs.common import OK, PROBLEM, say, say_json, session, verb


@verb("check-config", short_help="Say what the configuration means.")
def check_config(as_json: bool) -> int:
    """Read the configuration and say what it means, secrets left out.

    Exit code 2 if it cannot be used, 1 if it can and something about it is wrong.
    """
    from agent_client.collectors import COLLECTORS

    config = session().load()
    said = meaning(config)
    known = {kind.name for kind in COLLECTORS}
    said["warnings"] += [
        f"[collectors] {name}: there is no such collector; there are {', '.join(sorted(known))}"
        for name in config.collectors
        if name not in known
    ]
    if as_json:
        say_json(said)
    else:
        say("\n".join(_lines(said)))
    return PROBLEM if said["warnings"] else OK


def meaning(config: Config) -> dict[str, Any]:
    """The configuration as plain values, without its secrets."""
    access = config.openstack
    return {
        "file": config.path or None,
        "server": config.server or None,
        "key": bool(config.key),
        "host": config.hostname,
        "state_dir": config.state_dir,
        "interval": config.interval,
        "proxy": bool(config.proxy),
        "discovery": config.discovery,
        "remote": config.remote,
        "services": {
            one.name: {
                "project": one.project,
                "match": one.cmdline.pattern if one.cmdline else list(one.processes),
            }
            for one in config.services
        },
        "not_watched": sorted(config.unwatched),
        "logs": [
            {"path": one.pattern, "service": one.service, "level": one.level} for one in config.logs
        ],
        "levels": {name or "default": level for name, level in config.levels.items()},
        "collectors": dict(config.collectors),
        "drop": [
            {"measurement": one.measurement, "tags": dict(one.tags), "fields": list(one.fields)}
            for one in config.drops
        ],
        "openstack": {
            "enabled": access.enabled,
            "as": access.cloud or access.application_credential_id or access.user,
            "interval": access.interval,
        },
        "plugins": {module: list(names) for module, names in config.plugins.items()},
        "warnings": list(config.warnings),
    }


def _lines(said: dict[str, Any]) -> list[str]:
    lines = [
        f"file      {said['file'] or '(none)'}",
        f"server    {said['server'] or '(none: enrol first)'}",
        f"key       {'set' if said['key'] else '(none: enrol first)'}",
        f"host      {said['host']}",
        f"state     {said['state_dir']}",
        f"interval  {said['interval']:g} s",
        f"discovery {'on' if said['discovery'] else 'off'}",
        f"remote    {'the server may change settings' if said['remote'] else 'off'}",
    ]
    for name, one in said["services"].items():
        match = one["match"] if isinstance(one["match"], str) else ", ".join(one["match"])
        lines.append(f"service   {name} ({one['project'] or 'no project'}): {match}")
    lines.extend(f"service   {name}: not watched" for name in said["not_watched"])
    lines.extend(
        f"log       {one['path']} as {one['service']}, {one['level']} and worse"
        for one in said["logs"]
    )
    lines.extend(f"level     {name}: {level}" for name, level in said["levels"].items())
    lines.extend(
        f"collector {name}: {'on' if on else 'off'}" for name, on in said["collectors"].items()
    )
    for rule in said["drop"]:
        tags = ", ".join(f"{name} = {value}" for name, value in rule["tags"].items())
        what = ", ".join(rule["fields"]) or "whole points"
        lines.append(f"drop      {rule['measurement']}{f' [{tags}]' if tags else ''}: {what}")
    if said["openstack"]["enabled"]:
        access = said["openstack"]
        lines.append(f"openstack as {access['as']}, every {access['interval']:g} s")
    lines.extend(
        f"plugin    {module}: {', '.join(names)}" for module, names in said["plugins"].items()
    )
    lines.extend(f"warning   {warning}" for warning in said["warnings"])
    return lines
