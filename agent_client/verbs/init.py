"""`sentinella init`: make the configuration, by asking or from options and environment."""

from __future__ import annotations

import os
from typing import Any, Mapping

import click

from agent_client import config as configuration
from agent_client import toml_edit
from agent_client.config import ConfigError
from agent_client.private_files import write_private
from agent_client.verbs.common import (
    OK,
    Failure,
    is_asked,
    say,
    say_json,
    session,
    verb,
)  # fmt: skip
from agent_client.verbs.enrol import key_for, read_token

_HEAD = """\
# The Sentinella agent. All options: docs/agent.md; what this means: `sentinella check-config`.
# Services, log files and the OpenStack release are found without being named here.
"""


@verb("init", short_help="Make the configuration: asks, or takes options and environment.")
@click.option("--server", envvar="SENTINELLA_SERVER", metavar="URL", help="The Sentinella server.")
@click.option("--token", metavar="TOKEN", help="A one-time enrol token; `-` reads it from input.")
@click.option(
    "--key-file", envvar="SENTINELLA_KEY_FILE", metavar="FILE", help="A key that you have."
)
@click.option("--interval", metavar="SPAN", help="Between reports (default 60 s).")
@click.option("--host", envvar="SENTINELLA_HOST", metavar="NAME", help="Default: this host's name.")
@click.option("--ca-file", envvar="SENTINELLA_CA_FILE", metavar="FILE", help="A private authority.")
@click.option("--proxy", envvar="SENTINELLA_PROXY", metavar="URL", help="http://user@host:port")
@click.option("--proxy-password-file", metavar="FILE", help="The proxy's password.")
@click.option("--cloud", metavar="NAME", help="Of a clouds.yaml, to ask the OpenStack APIs.")
@click.option("--clouds-file", metavar="FILE", help="That clouds.yaml (default: the usual places).")
@click.option("--os-auth-url", envvar="OS_AUTH_URL", metavar="URL", help="Keystone.")
@click.option("--os-user", envvar="OS_USERNAME", metavar="NAME")
@click.option("--os-password-file", metavar="FILE")
@click.option("--os-project", envvar="OS_PROJECT_NAME", metavar="NAME")
@click.option("--remote/--no-remote", default=None, help="May the server change settings?")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing; take options and environment.")
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
def init(yes: bool, force: bool, as_json: bool, **given: Any) -> int:
    """Make the configuration and, with a token, enrol this server.

    At a terminal it asks for what no option gave; elsewhere, or with --yes, it asks nothing. The
    token and key may also come in SENTINELLA_TOKEN and SENTINELLA_KEY. A configuration that is
    there stays unless --force is given.
    """
    path = session().path
    asks = is_asked() and not yes
    if os.path.exists(path) and not force:
        if not asks:
            raise Failure(f"{path} is there already: --force replaces it", 2)
        click.confirm(f"{path} is there already. Replace it?", abort=True)
    given["token"] = read_token(given["token"])
    given["key"] = os.environ.get("SENTINELLA_KEY", "")
    if asks:
        _ask(given)
    if not given["server"]:
        raise ConfigError("init needs --server URL (or SENTINELLA_SERVER)")
    if not (given["token"] or given["key"] or given["key_file"]):
        raise ConfigError("init needs --token TOKEN, --key-file FILE or SENTINELLA_KEY")
    text = _text(given)
    if given["token"]:
        key = key_for(configuration.parse(text, path), given["token"])
        text = toml_edit.put(text, "agent", {"key": toml_edit.literal(key)})
    configuration.parse(text, path)  # what is wrong with it is said before it is written
    write_private(path, text)
    if as_json:
        say_json({"config": path, "server": given["server"], "enrolled": bool(given["token"])})
    else:
        say(f"written to {path}; next: sentinella doctor, then sentinella run")
    return OK


def _ask(given: dict[str, Any]) -> None:
    """Ask for what was not given; an empty answer leaves it out."""

    def ask(name: str, text: str, **more: Any) -> None:
        if not given[name]:
            given[name] = click.prompt(text, default="", show_default=False, **more).strip()

    ask("server", "Address of the Sentinella server")
    if not (given["token"] or given["key"] or given["key_file"]):
        ask("token", "One-time token (Servers, New server), or a key", hide_input=True)
    if not given["proxy"] and click.confirm("Is there a proxy on the way?", default=False):
        ask("proxy", "Its address, as http://user@host:port")
        if "@" in given["proxy"]:
            ask("proxy_password_file", "File that holds its password")
    known = given["cloud"] or given["os_auth_url"]
    if not known and click.confirm("Ask the OpenStack APIs too?", default=False):
        ask("cloud", "Name in a clouds.yaml (empty: user and password)")
        if not given["cloud"]:
            ask("os_auth_url", "Keystone's address")
            ask("os_user", "User")
            ask("os_password_file", "File that holds the password (mode 0600)")
            ask("os_project", "Project")
    if given["remote"] is None:
        given["remote"] = click.confirm(
            "May the server change interval, levels and collectors?", default=False
        )


def _text(given: Mapping[str, Any]) -> str:
    names = {
        "server": "server", "key": "key", "key_file": "key_file", "interval": "interval",
        "host": "host", "ca_file": "ca_file", "proxy": "proxy",
        "proxy_password_file": "proxy_password_file",
    }  # fmt: skip
    agent: dict[str, str | None] = {
        option: toml_edit.literal(given[name]) for option, name in names.items() if given[name]
    }
    state_dir = os.environ.get("SENTINELLA_STATE_DIR")
    if state_dir:
        agent["state_dir"] = toml_edit.literal(state_dir)
    if given["remote"]:
        agent["remote"] = "true"
    text = toml_edit.put(_HEAD, "agent", agent)
    access = {
        "cloud": "cloud", "clouds_file": "clouds_file", "auth_url": "os_auth_url",
        "user": "os_user", "password_file": "os_password_file", "project": "os_project",
    }  # fmt: skip
    openstack: dict[str, str | None] = {
        option: toml_edit.literal(given[name]) for option, name in access.items() if given[name]
    }
    complete = given["cloud"] or all(given[name] for name in list(access.values())[2:])
    return toml_edit.put(text, "openstack", openstack) if complete else text
