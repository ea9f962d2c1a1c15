"""What verbs write into the configuration; what they do not change stays as it is."""

from __future__ import annotations

import sys
from typing import Mapping, Sequence

from agent_client import original, toml_edit
from agent_client.config import ConfigError, is_original

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def with_enrolment(path: str, server: str, key: str, state_dir: str | None) -> str:
    """The text of the configuration at `path` with this server and key; the rest stays as it is.

    Comments are kept: only the lines of the settings themselves are replaced. Raises ConfigError.
    """
    text = _text_of(path)
    if is_original(path, text):
        return original.changed(text, {"api_url": server, "account_key": key})
    values: dict[str, str | None] = {
        "server": toml_edit.literal(server),
        "key": toml_edit.literal(key),
    }
    if state_dir:
        values["state_dir"] = toml_edit.literal(state_dir)
    values["key_file"] = None
    return _put(path, text, "agent", values)


def with_plugins(path: str, plugins: Mapping[str, Sequence[str]]) -> str:
    """The text of the configuration at `path` with exactly these plugins. Raises ConfigError."""
    text = _text_of(path)
    if is_original(path, text):
        return original.with_plugins(text, plugins)
    values: dict[str, str | None] = dict.fromkeys(tomllib.loads(text).get("plugins", {}))
    values.update((module, toml_edit.literal(list(names))) for module, names in plugins.items())
    return _put(path, text, "plugins", values)


def _put(path: str, text: str, table: str, values: Mapping[str, str | None]) -> str:
    try:
        return toml_edit.put(text, table, values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
