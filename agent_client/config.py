"""The agent's configuration: one TOML file, or the original agent's files as they are.

Single settings are overridden by the environment. The original's JSON is translated into the shape
of the TOML form (`original.py`), so that what follows is checked once, here.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import re
import socket
import sys
from typing import Any, Mapping, Pattern
from urllib.parse import quote, unquote, urlsplit

from agent_client import original, packs, plugin_modules
from agent_client.logformats import FORMATS
from agent_client.packs import Packs
from agent_client.plugins.limits import Limits
from agent_client.private_files import too_open
from agent_client.wire import LEVELS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PATH = "/etc/sentinella/agent.toml"
ORIGINAL_PATH = "/etc/sentinella/sentinella.conf"
DEFAULT_STATE_DIR = "/var/lib/sentinella"
EXCLUDED_INTERFACES = ("lo", "tap*", "qbr*", "qvb*", "qvo*", "qr-*", "qg-*", "veth*", "cali*")
#: Where plugins are put; the first that has a module counts.
PLUGIN_PATHS = ("/usr/local/lib/sentinella/plugins", "/usr/lib/sentinella/plugins")
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

#: What a log may be named by, and the kind of source that it then is.
LOG_KINDS = {"path": "file", "journal": "journal", "container": "container"}

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SPANS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FLAGS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}  # fmt: skip
_TABLES = (
    "agent", "spool", "collectors", "services", "logs", "levels", "drop", "masking", "openstack",
    "plugins", "plugin_limits", *packs.SECTIONS,
)  # fmt: skip


class ConfigError(Exception):
    """The configuration cannot be used; the text says where and what to do."""


@dataclasses.dataclass(frozen=True)
class Service:
    """One service to watch: any process of one of these names, or whose command line matches."""

    name: str
    project: str
    processes: tuple[str, ...]
    cmdline: Pattern[str] | None = None


@dataclasses.dataclass(frozen=True)
class LogSource:
    """A log to follow. Events below `level` are read and not sent.

    `kind` says what `pattern` is: "file", a path with wildcards; "journal", a systemd unit's name;
    "container", a container's log file (Docker's json-file or CRI's form; with wildcards) or its
    id. `format` names one of `logformats.FORMATS` where the lines alone leave it open; empty means
    by the lines. `tail` is how many bytes before its end a file is taken up when it is met for the
    first time. `limit` is how many events a minute it may send; 0 is no limit. Of files only those
    of the user `owner` are read; None is everybody's.
    """

    pattern: str
    service: str
    level: str = "warning"
    tail: int = 64 * 1024
    kind: str = "file"
    format: str = ""
    limit: int = 6000
    owner: int | None = None


@dataclasses.dataclass(frozen=True)
class Drop:
    """Points that are not kept: measurement and tags are patterns as of a shell.

    All named tags must match; with `fields` only those fields go, else the whole point.
    """

    measurement: str = "*"
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: tuple[str, ...] = ()

    def matches(self, measurement: str, tags: Mapping[str, str]) -> bool:
        """Whether the rule speaks of this point."""
        return fnmatch.fnmatchcase(measurement, self.measurement) and all(
            fnmatch.fnmatchcase(tags.get(name, ""), pattern) for name, pattern in self.tags.items()
        )


@dataclasses.dataclass(frozen=True)
class Masking:
    """What is made unreadable in log events beside what always is (passwords, tokens, keys)."""

    emails: bool = False
    patterns: tuple[Pattern[str], ...] = ()


@dataclasses.dataclass(frozen=True)
class OpenStack:
    """How to ask the cloud's APIs. `interval` in seconds; a read-only role is enough."""

    enabled: bool = False
    interval: float = 300.0
    cloud: str = ""
    clouds_file: str = ""
    auth_url: str = ""
    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    project: str = ""
    user_domain: str = "Default"
    project_domain: str = "Default"
    application_credential_id: str = ""
    application_credential_secret: str = dataclasses.field(default="", repr=False)
    region: str = ""
    interface: str = ""
    ca_file: str = ""


@dataclasses.dataclass(frozen=True)
class Config:
    """All that the agent is told. Spans in seconds, sizes in bytes."""

    #: The file that this was read from; empty where there was none.
    path: str = ""
    server: str = ""
    key: str = dataclasses.field(default="", repr=False)
    state_dir: str = DEFAULT_STATE_DIR
    interval: float = 60.0
    host: str = ""
    timeout: float = 10.0
    ca_file: str = ""
    #: Certificate (PEM, with its chain) and key by which the agent shows itself to the server.
    client_cert: str = ""
    client_key: str = ""
    proxy: str = dataclasses.field(default="", repr=False)
    log_level: str = "INFO"
    log_file: str = ""
    log_format: str = LOG_FORMAT
    exclude_interfaces: tuple[str, ...] = EXCLUDED_INTERFACES
    #: Whether services and logs are looked for, beside those that are named.
    discovery: bool = True
    #: Whether the server may change intervals, levels and collectors.
    remote: bool = False
    spool_max_bytes: int = 64 * 1024**2
    spool_max_age: float = 3 * 86_400.0
    services: tuple[Service, ...] = ()
    #: Names of services that are not to be watched, found or not.
    unwatched: frozenset[str] = frozenset()
    logs: tuple[LogSource, ...] = ()
    #: The least level of log events that are sent, by service; "" is for all others.
    levels: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"": "warning"})
    #: Collectors by name that are switched off (False) or on (True); the rest is on.
    collectors: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    drops: tuple[Drop, ...] = ()
    masking: Masking = Masking()
    openstack: OpenStack = OpenStack()
    packs: Packs = dataclasses.field(default_factory=Packs)
    #: Module name to the plugin functions in it that run.
    plugins: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    #: Directories that hold plugins' modules, the first first.
    plugin_paths: tuple[str, ...] = PLUGIN_PATHS
    plugins_dir: str = ""
    #: What plugins may use, by module; "" is for all others.
    plugin_limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    #: What the files of `plugins_dir` say, by name without `.conf`.
    plugin_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def hostname(self) -> str:
        """The name under which this host reports."""
        return self.host or socket.gethostname()

    def level_of(self, service: str) -> str:
        """The least level of this service's log events that is sent."""
        return self.levels.get(service) or self.levels.get("", "warning")

    def limits_of(self, module: str) -> Limits:
        """What the plugins of this module may use."""
        return self.plugin_limits.get(module) or self.plugin_limits.get("") or Limits()

    def settings_of(self, module: str) -> dict[str, Any]:
        """What the plugins of this module are told: their own files, nobody else's."""
        own = plugin_modules.config_names(module).union(self.limits_of(module).config)
        return {name: said for name, said in self.plugin_settings.items() if name in own}


def file_used(path: str | None, environ: Mapping[str, str]) -> str:
    """The configuration file that is meant: named, or the first of the usual places."""
    named = path or environ.get("SENTINELLA_CONFIG")
    if named:
        return named
    if not os.path.exists(DEFAULT_PATH) and os.path.exists(ORIGINAL_PATH):
        return ORIGINAL_PATH
    return DEFAULT_PATH


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the file and the environment. Without `path` the default file may be missing.

    Raises ConfigError on an unreadable file, an unknown option or a value out of range.
    """
    file_path = file_used(path, environ)
    warnings: list[str] = []
    try:
        document, found = _read(file_path, warnings)
        if not found and (path or environ.get("SENTINELLA_CONFIG")):
            raise ConfigError(f"{file_path}: no such file")
        config = _config(document, environ, warnings, file_path)
    except ValueError as error:
        raise ConfigError(f"{file_path}: {' '.join(str(error).split())}") from None
    return dataclasses.replace(config, path=file_path if found else "")


def parse(text: str, path: str) -> Config:
    """The configuration that this text is, without the environment. Raises ConfigError."""
    warnings: list[str] = []
    try:
        return _config(_document(text, path, warnings), {}, warnings, path)
    except ValueError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def _read(path: str, warnings: list[str]) -> tuple[dict[str, Any], bool]:
    """The file in the shape of the TOML form, and whether there is one. Raises ValueError."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = too_open(os.fstat(file.fileno()))
            text = file.read()
    except FileNotFoundError:
        return {}, False
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: {error}") from None
    except OSError as error:
        raise ValueError(error.strerror) from None
    document = _document(text, path, warnings)
    if mode and _holds_secret(document):
        warnings.append(f"{path} holds a secret and others may read it: chmod 600 {path}")
    return document, True


def _document(text: str, path: str, warnings: list[str]) -> dict[str, Any]:
    if is_original(path, text):
        document = original.translated(text, path, warnings)
    else:
        document = tomllib.loads(text)
    unknown = sorted(set(document) - set(_TABLES))
    if unknown:
        raise ValueError(f"[{unknown[0]}] is no section; there are {', '.join(_TABLES)}")
    return document


def is_original(path: str, text: str) -> bool:
    """Whether this is the original agent's file: JSON, whatever it is called."""
    return text.lstrip()[:1] == "{" or (path.endswith(".conf") and not text.strip())


def _holds_secret(document: Mapping[str, Any]) -> bool:
    secrets = {"key", "password", "proxy_password", "application_credential_secret"}
    tables = [document.get(name) for name in ("agent", "openstack", "rabbitmq")]
    return any(
        isinstance(table, Mapping)
        and (
            any(table.get(name) for name in secrets)
            or "@" in str(table.get("proxy", ""))
        )
        for table in tables
    )  # fmt: skip


class _Table:
    """One section: typed look-ups that name the section and option in what they raise."""

    def __init__(
        self,
        title: str,
        values: object,
        environ: Mapping[str, str] | None = None,
        prefix: str = "",
    ) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"[{title}] must be a section of its own, written [{title}]")
        self.title = title
        self._values = values
        self._environ = environ or {}
        self._prefix = prefix
        self._asked: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether something is said of it, here or in the environment."""
        return self._get(name) is not None

    def _get(self, name: str) -> object:
        self._asked.add(name)
        if self._prefix:
            said = self._environ.get(self._prefix + name.upper(), "")
            if said:
                return said
        return self._values.get(name)

    def error(self, name: str, text: str) -> ValueError:
        return ValueError(f"[{self.title}] {name}: {text}")

    def text(self, name: str, default: str = "") -> str:
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(name, f"needs text in quotes, not {value!r}")
        return str(value).strip()

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, str) and self._prefix:  # the environment knows text only
            value = _FLAGS.get(value.lower())
        if not isinstance(value, bool):
            raise self.error(name, "is true or false")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        value = self._get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            return tuple(words(value))
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(item.strip() for item in value if item.strip())
        raise self.error(name, 'is a list of texts, as ["one", "two"]')

    def span(self, name: str, default: str) -> float:
        return _span(f"[{self.title}] {name}", self.text(name, default))

    def size(self, name: str, default: str) -> int:
        return _size(f"[{self.title}] {name}", self.text(name, default))

    def pattern(self, name: str, value: str) -> Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            raise self.error(name, f"{value!r} is no regular expression: {error}") from None

    def secret(self, name: str, warnings: list[str]) -> str:
        """A secret given here or in the file that `<name>_file` names; the environment wins."""
        path = self.text(name + "_file")
        in_environ = self._environ.get(self._prefix + name.upper(), "")
        if path and (not self._values.get(name) or self._environ.get(
            self._prefix + name.upper() + "_FILE")) and not in_environ:  # fmt: skip
            try:
                with open(path, encoding="utf-8") as file:
                    if too_open(os.fstat(file.fileno())):
                        warnings.append(
                            f"{path} holds a secret and others may read it: chmod 600 {path}"
                        )
                    self._asked.add(name)
                    return file.read().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "is not text"
                raise self.error(name + "_file", f"{path}: {reason}") from None
        return self.text(name)

    def done(self) -> None:
        """All options were asked for. Raises ValueError on one that nobody knows."""
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise self.error(unknown[0], f"no such option; there are {known}")


def _config(
    document: Mapping[str, Any], environ: Mapping[str, str], warnings: list[str], path: str
) -> Config:
    agent = _Table("agent", document.get("agent", {}), environ, "SENTINELLA_")
    spool = _Table("spool", document.get("spool", {}))
    server = agent.text("server").rstrip("/")
    if server and (urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).netloc):
        raise agent.error("server", f"{server!r} is no http(s) URL")
    interval = agent.span("interval", "60")
    if not 1 <= interval <= 3600:
        raise agent.error("interval", "must lie between 1 second and 1 hour")
    timeout = agent.span("timeout", "10")
    if not 0 < timeout <= 120:
        raise agent.error("timeout", "must lie between 0 and 120 seconds")
    log_level = agent.text("log_level", "INFO").upper()
    if log_level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise agent.error("log_level", "is one of debug, info, warning, error, critical")
    key = agent.secret("key", warnings)
    if key and not re.match(r"[\x21-\x7e]+$", key):
        raise agent.error("key", "holds a character that no key has")
    levels = _levels(document.get("levels", {}))
    services, unwatched = _services(document.get("services", {}))
    beside = os.path.join(os.path.dirname(os.path.abspath(path)), "conf.d")
    plugins_dir = agent.text("plugins_dir", beside)
    config = Config(
        server=server,
        key=key,
        state_dir=agent.text("state_dir", DEFAULT_STATE_DIR),
        interval=interval,
        host=agent.text("host"),
        timeout=timeout,
        ca_file=agent.text("ca_file"),
        client_cert=agent.text("client_cert"),
        client_key=agent.text("client_key"),
        proxy=_proxy(agent, warnings),
        log_level=log_level,
        log_file=agent.text("log_file"),
        log_format=agent.text("log_format", LOG_FORMAT),
        exclude_interfaces=agent.words("exclude_interfaces") or EXCLUDED_INTERFACES,
        discovery=agent.flag("discovery", True),
        remote=agent.flag("remote", False),
        spool_max_bytes=spool.size("max_size", "64M"),
        spool_max_age=spool.span("max_age", "3d"),
        services=services,
        unwatched=unwatched,
        logs=_logs(document.get("logs", {}), levels),
        levels=levels,
        collectors=_collectors(document.get("collectors", {})),
        drops=_drops(document.get("drop", [])),
        masking=_masking(document.get("masking", {})),
        packs=packs.read(document, _Table, environ, warnings),
        openstack=_openstack(document.get("openstack", {}), environ, warnings),
        plugins=_plugins(document.get("plugins", {})),
        plugin_paths=agent.words("plugin_paths") or PLUGIN_PATHS,
        plugin_limits=_plugin_limits(document.get("plugin_limits", {})),
        plugins_dir=plugins_dir,
        plugin_settings=_plugin_settings(plugins_dir, warnings),
        warnings=tuple(warnings),
    )
    agent.done()
    spool.done()
    return config


def _proxy(agent: _Table, warnings: list[str]) -> str:
    """The proxy's URL, with the password of its file if that is where it is kept."""
    proxy = agent.text("proxy")
    password = agent.secret("proxy_password", warnings)
    if not proxy:
        return ""
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        raise agent.error("proxy", "its port is no number") from None
    if parts.scheme != "http" or not parts.hostname:
        raise agent.error("proxy", "is written http://user:password@host:port")
    if not password:
        return proxy
    at = f"{parts.hostname}:{port}" if port else parts.hostname
    return f"http://{quote(unquote(parts.username or ''), safe='')}:{quote(password, safe='')}@{at}"


def _services(values: object) -> tuple[tuple[Service, ...], frozenset[str]]:
    table = _Table("services", values)
    watched, unwatched = [], set()
    for name, said in _items(table, values):
        if said is False:
            unwatched.add(name)
            continue
        one = _Table(f"services.{name}", {} if said is True else said)
        pattern = one.text("cmdline")
        watched.append(
            Service(
                name=name,
                project=one.text("project"),
                processes=one.words("process") or (name,),
                cmdline=one.pattern("cmdline", pattern) if pattern else None,
            )
        )
        one.done()
    return tuple(watched), frozenset(unwatched)


def _logs(values: object, levels: Mapping[str, str]) -> tuple[LogSource, ...]:
    table = _Table("logs", values)
    sources = []
    for name, said in _items(table, values):
        one = _Table(f"logs.{name}", said)
        service = one.text("service", name)
        level = one.text("level", levels.get(service) or levels[""]).lower()
        if level not in LEVELS:
            raise one.error("level", f"is one of {', '.join(LEVELS)}")
        tail, limit = one.size("tail", "64K"), one.text("limit", str(LogSource.limit))
        if not limit.isdigit():
            raise one.error("limit", "is a number of events a minute, or 0 for no limit")
        said_format = one.text("format")
        if said_format not in FORMATS:
            raise one.error("format", f"is one of {', '.join(FORMATS[1:])}, or left out")
        patterns = [(kind, pattern) for kind in LOG_KINDS for pattern in one.words(kind)]
        if not patterns:
            raise one.error("path", "is needed: the files to follow (or journal, or container)")
        for kind, pattern in patterns:
            if kind == "path" and not os.path.isabs(pattern):
                raise one.error("path", f"{pattern} must start with /")
            sources.append(
                LogSource(
                    os.path.normpath(pattern) if os.path.isabs(pattern) else pattern,
                    service,
                    level,
                    tail,
                    LOG_KINDS[kind],
                    said_format,
                    int(limit),
                )
            )
        one.done()
    return tuple(sources)


def _levels(values: object) -> dict[str, str]:
    table = _Table("levels", values)
    levels = {"": "warning"}
    for name, _said in _items(table, values):
        level = table.text(name).lower()
        if level not in LEVELS:
            raise table.error(name, f"is one of {', '.join(LEVELS)}")
        levels["" if name == "default" else name] = level
    return levels


def _collectors(values: object) -> dict[str, bool]:
    table = _Table("collectors", values)
    return {name: table.flag(name, True) for name, _said in _items(table, values)}


def _drops(values: object) -> tuple[Drop, ...]:
    if not isinstance(values, list):
        raise ValueError("drop is a list: each rule is a section [[drop]]")
    rules = []
    for number, said in enumerate(values, 1):
        one = _Table(f"[drop]] number {number}", said)
        tags = said.get("tags", {})
        if not isinstance(tags, Mapping) or not all(isinstance(v, str) for v in tags.values()):
            raise one.error("tags", 'is written { interface = "tap*" }')
        rule = Drop(one.text("measurement", "*"), dict(tags), one.words("fields"))
        if rule == Drop():
            raise one.error("measurement", "is needed, or tags, or fields: this would drop all")
        one.has("tags")
        one.done()
        rules.append(rule)
    return tuple(rules)


def _masking(values: object) -> Masking:
    table = _Table("masking", values)
    patterns = tuple(table.pattern("patterns", one) for one in table.words("patterns"))
    masking = Masking(emails=table.flag("emails", False), patterns=patterns)
    table.done()
    return masking


def _openstack(values: object, environ: Mapping[str, str], warnings: list[str]) -> OpenStack:
    table = _Table("openstack", values, environ, "SENTINELLA_OPENSTACK_")
    interval = table.span("interval", "5m")
    if not 30 <= interval <= 86_400:
        raise table.error("interval", "must lie between 30 seconds and 1 day")
    given = OpenStack(
        interval=interval,
        cloud=table.text("cloud"),
        clouds_file=table.text("clouds_file"),
        auth_url=table.text("auth_url"),
        user=table.text("user"),
        password=table.secret("password", warnings),
        project=table.text("project"),
        user_domain=table.text("user_domain", "Default"),
        project_domain=table.text("project_domain", "Default"),
        application_credential_id=table.text("application_credential_id"),
        application_credential_secret=table.secret("application_credential_secret", warnings),
        region=table.text("region"),
        interface=table.text("interface"),
        ca_file=table.text("ca_file"),
    )
    complete = bool(
        given.cloud
        or (
            given.auth_url
            and given.application_credential_id
            and given.application_credential_secret
        )
        or (given.auth_url and given.user and given.password and given.project)
    )
    enabled = table.flag("enabled", complete)
    if enabled and not complete:
        raise ValueError(
            "[openstack] needs cloud (of a clouds.yaml); or auth_url with user, password, project;"
            " or auth_url with application_credential_id and _secret"
        )
    table.done()
    return dataclasses.replace(given, enabled=enabled)


def _plugins(values: object) -> dict[str, tuple[str, ...]]:
    table = _Table("plugins", values)
    found = {}
    for module, _said in _items(table, values):
        functions = table.words(module)
        for name in [*module.split("."), *functions]:
            if not name.replace("-", "_").isidentifier():
                raise table.error(module, f"{name!r} is no name of a module or function")
        if functions:
            found[module] = functions
    return found


def _plugin_limits(values: object) -> dict[str, Limits]:
    """`[plugin_limits]` for all plugins, and a section in it for one module."""
    _Table("plugin_limits", values)
    assert isinstance(values, Mapping)  # noqa: S101 - the table has looked
    general = {name: said for name, said in values.items() if not isinstance(said, Mapping)}
    found = {"": _limits("plugin_limits", general, Limits())}
    for module, said in values.items():
        if isinstance(said, Mapping):
            found[module] = _limits(f'plugin_limits."{module}"', said, found[""])
    return found


def _limits(title: str, values: Mapping[str, Any], otherwise: Limits) -> Limits:
    table = _Table(title, values)
    paths = {name: table.words(name) or getattr(otherwise, name) for name in ("read", "write")}
    for name, given in paths.items():
        for path in given:
            if not os.path.isabs(path):
                raise table.error(name, f"{path} must start with /")
    limits = Limits(
        user=table.text("user", otherwise.user),
        groups=table.words("groups") or otherwise.groups,
        config=table.words("config") or otherwise.config,
        memory=table.size("memory", str(otherwise.memory)),
        cpu=_percent(table, "cpu", otherwise.cpu),
        files=table.size("files", str(otherwise.files)),
        processes=table.size("processes", str(otherwise.processes)),
        network=table.flag("network", otherwise.network),
        hang_after=table.span("hang_after", str(otherwise.hang_after)),
        **paths,
    )
    if limits.memory < 64 * 1024**2 or limits.files < 16 or limits.processes < 8:
        raise table.error("memory", "at least 64M, 16 files and 8 processes are needed")
    if limits.hang_after < 10:
        raise table.error("hang_after", "at least 10 seconds")
    table.done()
    return limits


def _percent(table: _Table, name: str, default: float) -> float:
    try:
        value = float(table.text(name, str(default)))
    except ValueError:
        value = -1.0
    if not 0 < value <= 6400:
        raise table.error(name, "is a number: percent of one processor")
    return value


def _plugin_settings(directory: str, warnings: list[str]) -> dict[str, Any]:
    """Every `*.conf` of the directory as JSON; one that is not is told and left out."""
    if not directory:
        return {}
    found: dict[str, Any] = {}
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return {}
    except OSError as error:
        warnings.append(f"plugins_dir {directory}: {error.strerror}")
        return {}
    for name in names:
        if not name.endswith(".conf"):
            continue
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8") as file:
                found[name[: -len(".conf")]] = json.load(file)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"no valid JSON ({error})"
            warnings.append(f"{path} is left out: {reason}")
    return found


def _items(table: _Table, values: object) -> list[tuple[str, Any]]:
    assert isinstance(values, Mapping)  # noqa: S101 - the table has looked
    return list(values.items())


def words(text: str) -> list[str]:
    """Items of a list: separated by commas or line ends."""
    return [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]


def _size(name: str, text: str) -> int:
    try:
        return size(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def size(text: str) -> int:
    """Bytes of a size as people write it. Raises ValueError."""
    match = re.match(r"(\d+)\s*([kmg]?)(?:i?b)?$", text.strip().lower())
    if not match:
        raise ValueError(f"{text!r}: a size is written like 64M")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _span(name: str, text: str) -> float:
    try:
        return span(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def span(text: str) -> float:
    """Seconds of a span as people write it. Raises ValueError."""
    match = re.match(r"(\d+(?:\.\d+)?)\s*([smhd]?)$", text.strip().lower())
    if not match:
        raise ValueError(f"{text!r}: a span is written like 60, 90s, 5m or 3d")
    return float(match.group(1)) * _SPANS[match.group(2)]
