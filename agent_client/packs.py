"""What the health packs are told: addresses and, where one is needed, a right to look."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Mapping
from urllib.parse import urlsplit


@dataclasses.dataclass(frozen=True)
class Packs:
    """Everything may stay empty: then the usual address of a service that runs here is used."""

    rabbitmq_url: str = ""
    rabbitmq_user: str = ""
    rabbitmq_password: str = dataclasses.field(default="", repr=False)
    rabbitmq_ca_file: str = ""
    mariadb_defaults_file: str = ""
    memcached: tuple[str, ...] = ()
    haproxy: tuple[str, ...] = ()
    #: host:port of TLS services, and patterns of files that hold certificates.
    certificate_hosts: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()


def read(
    document: Mapping[str, Any],
    section: Callable[[str, object, Mapping[str, str], str], Any],
    environ: Mapping[str, str],
    warnings: list[str],
) -> Packs:
    """The sections of the packs. Raises ValueError that says what is wrong with which option."""

    def opened(name: str) -> Any:
        return section(name, document.get(name, {}), environ, f"SENTINELLA_{name.upper()}_")

    rabbitmq, mariadb = opened("rabbitmq"), opened("mariadb")
    memcached, haproxy, certificates = (
        opened("memcached"),
        opened("haproxy"),
        opened("certificates"),
    )
    url = rabbitmq.text("url").rstrip("/")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
        raise rabbitmq.error("url", f"{url!r} is no http(s) URL of the management plugin")
    hosts = certificates.words("hosts")
    for host in hosts:
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit():
            raise certificates.error("hosts", f"{host!r} is written host:port")
    packs = Packs(
        rabbitmq_url=url,
        rabbitmq_user=rabbitmq.text("user"),
        rabbitmq_password=rabbitmq.secret("password", warnings),
        rabbitmq_ca_file=rabbitmq.text("ca_file"),
        mariadb_defaults_file=mariadb.text("defaults_file"),
        memcached=memcached.words("addresses"),
        haproxy=haproxy.words("sockets"),
        certificate_hosts=hosts,
        certificate_files=certificates.words("files"),
    )
    for table in (rabbitmq, mariadb, memcached, haproxy, certificates):
        table.done()
    return packs


#: The sections that `read` knows.
SECTIONS = ("rabbitmq", "mariadb", "memcached", "haproxy", "certificates")
