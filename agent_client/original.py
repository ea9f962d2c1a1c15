"""The original agent's configuration, read as it is: `sentinella.conf` and what it points at.

Keys and meanings: the published agents 0.5 and 1.1. What they had to be told and this agent finds
by itself is accepted and not needed.
"""

from __future__ import annotations

import json
import os
from typing import Any, Mapping, Sequence
from urllib.parse import quote

#: Modules of the original itself: what they did is part of this agent.
STOCK_MODULES = ("sentinella.metrics", "sentinella.openstack_logs")

_KNOWN = {
    "api_url", "account_key", "log_file", "log_level", "log_format", "plugins_conf_dir",
    "openstack_services", "openstack_credentials", "plugins", "proxy", "plugin_limits",
}  # fmt: skip


def translated(text: str, path: str, warnings: list[str]) -> dict[str, Any]:
    """The file's content in the shape of the TOML form. Raises ValueError."""
    said = _object(text)
    unknown = sorted(set(said) - _KNOWN)
    if unknown:
        warnings.append(f"{path}: {', '.join(unknown)} is not known and not used")
    agent: dict[str, Any] = {
        "server": _text(said, "api_url"),
        "key": _text(said, "account_key"),
        "log_file": _text(said, "log_file"),
        "log_level": _log_level(_text(said, "log_level")),
        "log_format": _text(said, "log_format") or "%(message)s",
        "plugins_dir": _text(said, "plugins_conf_dir").replace(
            "${tourbillon_conf_dir}", os.path.dirname(os.path.abspath(path))
        ),
    }
    if agent["server"].startswith("https:"):  # the original's proxy is for https alone
        agent["proxy"] = _proxy(_table(said, "proxy"))
    services: dict[str, Any] = {}
    logs: dict[str, Any] = {}
    for name, what in _table(said, "openstack_services").items():
        if what is False:
            services[name] = False
            continue
        if not isinstance(what, Mapping):
            raise ValueError(f"openstack_services {name}: is an object or false")
        services[name] = {
            "project": name.partition("-")[0],
            "process": _text(what, "process") or name,
        }
        log = _text(what, "log")
        if log:
            logs[name] = {"path": [log], "service": name}
    return {
        "agent": {name: value for name, value in agent.items() if value},
        "services": services,
        "logs": logs,
        "openstack": _credentials(_table(said, "openstack_credentials")),
        "plugins": {
            module: functions
            for module, functions in _table(said, "plugins").items()
            if module not in STOCK_MODULES
        },
        # The network they have always had there; the rest is no setting of the original.
        "plugin_limits": {"network": True, **_table(said, "plugin_limits")},
    }


def _credentials(said: Mapping[str, Any]) -> dict[str, str]:
    """Empty where one of the four is empty: that is how the original switches its API off."""
    names = ("user", "password", "project", "auth_url")
    given = {name: _text(said, name) for name in names}
    return given if all(given.values()) else {}


def _proxy(said: Mapping[str, Any]) -> str:
    host, port = _text(said, "host"), _text(said, "port")
    if not host:
        return ""
    user, password = _text(said, "user"), _text(said, "password")
    who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"http://{who}{host}{':' + port if port else ''}"


def _log_level(said: str) -> str:
    named = said.upper()
    return {"WARN": "WARNING", "FATAL": "CRITICAL", "NOTSET": "DEBUG"}.get(named, named)


def changed(text: str, values: Mapping[str, str]) -> str:
    """The file's text with these keys set, keys sorted as the original writes it."""
    return _written({**_object(text or "{}"), **values})


def with_plugins(text: str, plugins: Mapping[str, Sequence[str]]) -> str:
    """The file's text with exactly these plugins beside the stock ones; none takes all away."""
    said = _object(text or "{}")
    before = _table(said, "plugins")
    kept = {module: names for module, names in before.items() if module in STOCK_MODULES}
    said["plugins"] = {**kept, **{module: list(names) for module, names in plugins.items()}}
    if not plugins:
        del said["plugins"]
    return _written(said)


def _written(said: Mapping[str, Any]) -> str:
    return json.dumps(said, indent=4, sort_keys=True) + "\n"


def _object(text: str) -> dict[str, Any]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("is no JSON object")
    return said


def _table(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: is an object")
    return value


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{name}: is a text")
    return str(value).strip()
