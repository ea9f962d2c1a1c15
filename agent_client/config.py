"""The agent's configuration: one INI file, single settings overridden by the environment."""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
import socket
import stat
import uuid
from typing import Mapping, Pattern
from urllib.parse import urlsplit

from agent_client.wire import LEVELS

DEFAULT_PATH = "/etc/sentinella/agent.ini"
DEFAULT_STATE_DIR = "/var/lib/sentinella"
EXCLUDED_INTERFACES = ("lo", "tap*", "qbr*", "qvb*", "qvo*", "qr-*", "qg-*", "veth*", "cali*")

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SPANS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_OPTIONS = {
    "agent": {
        "server", "key", "key_file", "state_dir", "interval", "host", "timeout", "ca_file",
        "proxy", "log_level", "exclude_interfaces",
    },
    "spool": {"max_size", "max_age"},
    "service": {"project", "process", "cmdline"},
    "log": {"path", "service", "level", "tail"},
}  # fmt: skip


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
    first time.
    """

    pattern: str
    service: str
    level: str = "warning"
    tail: int = 64 * 1024
    kind: str = "file"
    format: str = ""


@dataclasses.dataclass(frozen=True)
class Config:
    """All that the agent is told. Spans in seconds, sizes in bytes."""

    server: str = ""
    key: str = dataclasses.field(default="", repr=False)
    state_dir: str = DEFAULT_STATE_DIR
    interval: float = 60.0
    host: str = ""
    timeout: float = 10.0
    ca_file: str = ""
    proxy: str = dataclasses.field(default="", repr=False)
    log_level: str = "INFO"
    exclude_interfaces: tuple[str, ...] = EXCLUDED_INTERFACES
    spool_max_bytes: int = 64 * 1024**2
    spool_max_age: float = 3 * 86_400.0
    services: tuple[Service, ...] = ()
    logs: tuple[LogSource, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def hostname(self) -> str:
        """The name under which this host reports."""
        return self.host or socket.gethostname()


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the file and the environment. Without `path` the default file may be missing.

    Raises ConfigError on an unreadable file, an unknown option or a value out of range.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="", strict=True)
    warnings: list[str] = []
    file_path = path or DEFAULT_PATH
    try:
        with open(file_path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            parser.read_file(file)
        if parser.get("agent", "key", fallback="") and mode & (stat.S_IRWXG | stat.S_IRWXO):
            warnings.append(f"{file_path} holds the key and others may read it: chmod 600")
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{file_path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{file_path}: {' '.join(str(error).split())}") from None
    try:
        return _config(parser, environ, warnings)
    except ValueError as error:
        raise ConfigError(f"{file_path}: {error}") from None


def _config(
    parser: configparser.ConfigParser, environ: Mapping[str, str], warnings: list[str]
) -> Config:
    services, logs = [], []
    for title in parser.sections():
        kind, _, name = title.partition(" ")
        name = name.strip().strip('"')
        if kind not in _OPTIONS or (kind in ("service", "log")) != bool(name):
            raise ValueError(
                f"[{title}] is no section; there are [agent], [spool], [service NAME], [log NAME]"
            )
        unknown = sorted(set(parser[title]) - _OPTIONS[kind])
        if unknown:
            raise ValueError(f"[{title}] {unknown[0]}: no such option")
        if kind == "service":
            services.append(_service(name, parser[title]))
        elif kind == "log":
            logs.extend(_logs(name, parser[title]))

    def option(name: str, default: str = "", section: str = "agent") -> str:
        said = environ.get("SENTINELLA_" + name.upper(), "") if section == "agent" else ""
        return said or parser.get(section, name, fallback=default).strip()

    defaults = Config()
    server = option("server").rstrip("/")
    if server and (urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).netloc):
        raise ValueError(f"server {server!r} is no http(s) URL")
    interval = _span("interval", option("interval", "60"))
    if not 1 <= interval <= 3600:
        raise ValueError("interval must lie between 1 second and 1 hour")
    timeout = _span("timeout", option("timeout", "10"))
    if not 0 < timeout <= 120:
        raise ValueError("timeout must lie between 0 and 120 seconds")
    log_level = option("log_level", "INFO").upper()
    if log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("log_level is one of debug, info, warning, error")
    key = option("key")
    key_file = option("key_file")
    if key_file and not key:
        try:
            with open(key_file, encoding="utf-8") as file:
                key = file.read().strip()
        except OSError as error:
            raise ValueError(f"key_file {key_file}: {error.strerror}") from None
    if key and not re.match(r"[\x21-\x7e]+$", key):
        raise ValueError("key holds a character that no key has")
    interfaces = option("exclude_interfaces")
    return Config(
        server=server,
        key=key,
        state_dir=option("state_dir", DEFAULT_STATE_DIR),
        interval=interval,
        host=option("host"),
        timeout=timeout,
        ca_file=option("ca_file"),
        proxy=option("proxy"),
        log_level=log_level,
        exclude_interfaces=tuple(words(interfaces)) or defaults.exclude_interfaces,
        spool_max_bytes=_size("max_size", option("max_size", "64M", "spool")),
        spool_max_age=_span("max_age", option("max_age", "3d", "spool")),
        services=tuple(services),
        logs=tuple(logs),
        warnings=tuple(warnings),
    )


def _service(name: str, section: Mapping[str, str]) -> Service:
    pattern = section.get("cmdline", "")
    try:
        cmdline = re.compile(pattern) if pattern else None
    except re.error as error:
        raise ValueError(f"[service {name}] cmdline: {error}") from None
    return Service(
        name=name,
        project=section.get("project", ""),
        processes=tuple(words(section.get("process", name))),
        cmdline=cmdline,
    )


def _logs(name: str, section: Mapping[str, str]) -> list[LogSource]:
    level = section.get("level", "warning").lower()
    if level not in LEVELS:
        raise ValueError(f"[log {name}] level is one of {', '.join(LEVELS)}")
    patterns = words(section.get("path", ""))
    if not patterns:
        raise ValueError(f"[log {name}] needs a path")
    for pattern in patterns:
        if not os.path.isabs(pattern):
            raise ValueError(f"[log {name}] path {pattern}: must start with /")
    return [
        LogSource(
            pattern=os.path.normpath(pattern),
            service=section.get("service", name),
            level=level,
            tail=_size("tail", section.get("tail", "64K")),
        )
        for pattern in patterns
    ]


def words(text: str) -> list[str]:
    """Items of a list: separated by commas or line ends."""
    return [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]


def _size(name: str, text: str) -> int:
    match = re.match(r"(\d+)\s*([kmg]?)(?:i?b)?$", text.strip().lower())
    if not match:
        raise ValueError(f"{name} {text!r}: a size is written like 64M")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _span(name: str, text: str) -> float:
    match = re.match(r"(\d+(?:\.\d+)?)\s*([smhd]?)$", text.strip().lower())
    if not match:
        raise ValueError(f"{name} {text!r}: a span is written like 60, 90s, 5m or 3d")
    return float(match.group(1)) * _SPANS[match.group(2)]


def agent_id(state_dir: str) -> str:
    """This agent's id, made once and kept in the state directory. Raises OSError."""
    path = os.path.join(state_dir, "agent-id")
    try:
        with open(path, encoding="ascii") as file:
            return str(uuid.UUID(file.read().strip()))
    except FileNotFoundError:
        made = str(uuid.uuid4())
    except ValueError:
        raise ConfigError(f"{path} holds no agent id: remove it to get a new one") from None
    write_private(path, made + "\n")
    return made


def write_private(path: str, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def with_enrolment(path: str, server: str, key: str, state_dir: str | None) -> str:
    """The text of the configuration at `path` with this server and key; the rest stays as it is.

    Comments are kept: only the lines of the settings themselves are replaced.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    wanted = {"server": server, "key": key}
    if state_dir:
        wanted["state_dir"] = state_dir
    kept, inside = [], False
    for line in lines:
        if line.startswith("["):
            inside = line.strip() == "[agent]"
        name = re.split(r"[=:]", line, maxsplit=1)[0].strip().lower()
        if not (inside and (name in wanted or name == "key_file")):
            kept.append(line)
    if "[agent]" not in (line.strip() for line in kept):
        kept[:0] = ["[agent]", ""]
    at = [line.strip() for line in kept].index("[agent]") + 1
    kept[at:at] = [f"{name} = {value}" for name, value in wanted.items()]
    return "\n".join(kept) + "\n"
