"""The health packs read what the programs that OpenStack stands on say of themselves."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_client import certificates, units
from agent_client import config as configuration
from agent_client.collector import Points
from agent_client.collectors import certificate, haproxy, mariadb, memcached, rabbitmq
from agent_client.collectors.listening import Listeners
from agent_client.config import Config, ConfigError
from agent_client.discovery import ports
from agent_client.packs import Packs

GOOD = "secret"
PROMETHEUS = """\
# TYPE rabbitmq_connections gauge
rabbitmq_connections 50
rabbitmq_queues 71
rabbitmq_queue_messages_ready 12
rabbitmq_alarms_memory_used_watermark 0
rabbitmq_alarms_free_disk_space_watermark{node="a"} 1
rabbitmq_disk_space_available_bytes 7.8211510272e10
"""
HAPROXY = """\
# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,econ,eresp,status,act,downtime,\
check_duration,last_chk,hrsp_5xx,ttime,
nova,FRONTEND,,,2,9,4000,77,10,20,0,,,OPEN,,,,,3,,
nova,c1,0,0,1,5,,40,10,20,,1,2,UP,1,9,4,,3,7,
nova,c2,0,0,0,5,,37,10,20,,1,2,DOWN,1,60,2000,L4TOUT,3,7,

"""
STATUS = """\
Threads_connected\t390
Max_used_connections\t399
Slow_queries\t4
Uptime\t691
max_connections\t400
"""
GALERA = """\
wsrep_provider_name\tGalera
wsrep_cluster_size\t2
wsrep_cluster_status\tnon-Primary
wsrep_ready\tOFF
wsrep_local_state_comment\tSynced
wsrep_flow_control_paused\t0.25
"""


def collected(collector: Any) -> Points:
    points = Points()
    collector.collect(points)
    return points


@pytest.fixture(autouse=True)
def every_field_has_its_unit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a pack adds in these tests stands in the table of units."""
    missing: set[tuple[str, str]] = set()
    add = Points.add

    def noted(self: Points, measurement: str, fields: Any, tags: Any = None) -> None:
        known = units.FIELDS.get(measurement, {})
        missing.update((measurement, name) for name in fields if name not in known)
        add(self, measurement, fields, tags)

    monkeypatch.setattr(Points, "add", noted)
    yield
    assert not missing


def only(points: Points, measurement: str, **tags: str) -> dict[str, float]:
    found = [
        one for one in points.points
        if one.measurement == measurement and tags.items() <= one.tags.items()
    ]  # fmt: skip
    assert len(found) == 1, (measurement, tags, points.points)
    return dict(found[0].fields)


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts a server of one answer, at a TCP port or a socket's path."""
    running: list[socketserver.BaseServer] = []

    def start(answer: bytes, path: str = "") -> Any:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(1024)
                self.request.sendall(answer)

        kind = socketserver.ThreadingUnixStreamServer if path else socketserver.ThreadingTCPServer
        server: Any = kind(path or ("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server.server_address

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


# -- memcached -----------------------------------------------------------------


def test_memcached_tells_its_memory_and_how_often_it_could_help(
    serve: Callable[..., Any],
) -> None:
    said = b"STAT version 1.6.18\r\nSTAT bytes 25\r\nSTAT limit_maxbytes 100\r\n"
    host, port = serve(said + b"STAT get_hits 3\r\nSTAT get_misses 1\r\nEND\r\n")
    config = Config(packs=Packs(memcached=(f"{host}:{port}",)))
    fields = only(collected(memcached.Memcached(config)), "memcached")
    assert (fields["up"], fields["used_percent"], fields["hit_percent"]) == (1, 25, 75)


def test_a_pack_asks_each_half_minute_and_at_once_where_somebody_waits(
    serve: Callable[..., Any],
) -> None:
    host, port = serve(b"STAT bytes 25\r\nEND\r\n")
    collector = memcached.Memcached(Config(packs=Packs(memcached=(f"{host}:{port}",))))
    assert collected(collector).points
    assert collected(collector).points == []
    collector.settle(1)
    assert collected(collector).points


def test_a_memcached_that_is_gone_is_down_and_said(free_port: int) -> None:
    config = Config(packs=Packs(memcached=(f"127.0.0.1:{free_port}",)))
    points = collected(memcached.Memcached(config))
    assert only(points, "memcached") == {"up": 0}
    assert "refused" in points.warnings[0]


def test_something_else_at_memcacheds_port_is_not_taken_for_it(serve: Callable[..., Any]) -> None:
    host, port = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    config = Config(packs=Packs(memcached=(f"{host}:{port}",)))
    points = collected(memcached.Memcached(config))
    assert only(points, "memcached") == {"up": 0}
    assert "the answer is not memcached's" in points.warnings[0]


# -- HAProxy -------------------------------------------------------------------


def test_haproxy_tells_each_proxy_and_server_and_what_goes_down_is_an_event(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    path = str(tmp_path / "admin.sock")
    text = [HAPROXY.encode()]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            self.request.sendall(text[0])

    made = socketserver.ThreadingUnixStreamServer(path, Handler)
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    configuration_file = tmp_path / "haproxy.cfg"
    configuration_file.write_text(f"global\n  stats socket {path} mode 660 level admin\n")
    collector = haproxy.HaProxy(Config(), str(configuration_file))
    collector.every = 0
    points = collected(collector)
    assert only(points, "haproxy", server="FRONTEND")["sessions_limit"] == 4000
    assert only(points, "haproxy", server="c1")["check_seconds"] == 0.004
    assert only(points, "haproxy", server="c2")["up"] == 0
    assert points.news == []  # how it was found is no news
    text[0] = text[0].replace(b"2,UP,1,9,4,", b"2,DOWN,1,9,4,L4CON")
    (news,) = collected(collector).news
    assert (news.level, news.text) == ("error", "HAProxy: c1 of nova is DOWN: L4CON")
    made.shutdown()
    made.server_close()


def test_a_haproxy_without_a_socket_is_nobodys_fault(tmp_path: Path) -> None:
    points = collected(haproxy.HaProxy(Config(), str(tmp_path / "none.cfg")))
    assert (points.points, points.warnings) == ([], [])


# -- MariaDB -------------------------------------------------------------------


def client(tmp_path: Path, script: str) -> str:
    """A client program that does as the script says."""
    path = tmp_path / "mariadb"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_mariadb_tells_its_connections_against_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "login.cnf").write_text("[client]\nuser=s\npassword=p\n")
    script = f'echo "$@" > {tmp_path}/words; cat {tmp_path}/status'
    monkeypatch.setattr(mariadb, "_program", lambda: client(tmp_path, script))
    packs = Packs(mariadb_defaults_file=str(tmp_path / "login.cnf"))
    fields = only(collected(mariadb.MariaDb(Config(packs=packs))), "mariadb")
    assert (fields["up"], fields["connections_percent"]) == (1, 97.5)
    assert "cluster_size" not in fields
    assert "password" not in (tmp_path / "words").read_text()


def test_mariadb_that_refuses_is_down_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "login.cnf").write_text("[client]\n")
    script = 'echo "ERROR 1040 (08004): Too many connections" >&2; exit 1'
    monkeypatch.setattr(mariadb, "_program", lambda: client(tmp_path, script))
    packs = Packs(mariadb_defaults_file=str(tmp_path / "login.cnf"))
    points = collected(mariadb.MariaDb(Config(packs=packs)))
    assert only(points, "mariadb") == {"up": 0}
    assert points.warnings == ["ERROR 1040 (08004): Too many connections"]


def test_of_galera_the_cluster_is_told() -> None:
    said = {
        line.split("\t")[0].lower(): line.split("\t")[1] for line in (STATUS + GALERA).splitlines()
    }
    fields = mariadb.fields_of(said)
    assert fields["cluster_size"] == 2
    assert (fields["cluster_primary"], fields["cluster_ready"]) == (False, False)
    assert (fields["cluster_synced"], fields["flow_control_percent"]) == (True, 25)


# -- RabbitMQ ------------------------------------------------------------------


class Management:
    """The management plugin's API."""

    def __init__(self) -> None:
        outer = self
        self.nodes = [
            {"name": "rabbit@a", "running": True, "partitions": [], "mem_alarm": False,
             "disk_free_alarm": False},
        ]  # fmt: skip
        self.queues = [
            {"vhost": "/", "name": "notifications.info", "messages": 70_000, "consumers": 0},
            {"vhost": "/", "name": "conductor", "messages": 0, "consumers": 3},
        ]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = self.headers["Authorization"] == "Basic bW9uOnNlY3JldA=="
                body = outer.nodes if "/api/nodes" in self.path else outer.queues
                raw = json.dumps(body if allowed else {}).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def management(monkeypatch: pytest.MonkeyPatch) -> Iterator[Management]:
    monkeypatch.setattr(rabbitmq, "listening", lambda port: "")
    made = Management()
    yield made
    made.server.shutdown()
    made.server.server_close()


def watcher(management: Management, password: str = GOOD) -> rabbitmq.RabbitMq:
    packs = Packs(
        rabbitmq_url=management.url, rabbitmq_user="mon", rabbitmq_password=password
    )  # fmt: skip
    collector = rabbitmq.RabbitMq(Config(packs=packs))
    collector.every = 0
    return collector


def test_messages_that_nobody_takes_are_counted_and_their_queue_named(
    management: Management,
) -> None:
    points = collected(watcher(management))
    fields = only(points, "rabbitmq")
    assert (fields["queues_without_consumer"], fields["messages_without_consumer"]) == (1, 70_000)
    assert only(points, "rabbitmq_queue") == {"messages": 70_000, "consumers": 0}


def test_a_parted_cluster_and_an_alarm_are_events_once_and_when_they_are_over(
    management: Management,
) -> None:
    collector = watcher(management)
    assert collected(collector).news == []
    management.nodes[0].update(partitions=["rabbit@b"], mem_alarm=True)
    assert {news.level for news in collected(collector).news} == {"critical"}
    assert collected(collector).news == []
    management.nodes[0].update(partitions=[], mem_alarm=False)
    assert [news.level for news in collected(collector).news] == ["info", "info"]


def test_a_wrong_password_is_one_clear_line(management: Management) -> None:
    points = collected(watcher(management, "wrong"))
    assert points.warnings == [
        f"{management.url}: 401: wrong user or password, or without the tag monitoring"
    ]


def test_the_prometheus_plugin_alone_tells_alarms_and_queues() -> None:
    fields = rabbitmq.exported(PROMETHEUS)
    assert (fields["connections"], fields["queues"], fields["messages_ready"]) == (50, 71, 12)
    assert (fields["alarm_memory"], fields["alarm_disk"]) == (0, 1)
    assert fields["disk_free_bytes"] == 78_211_510_272
    with pytest.raises(ValueError, match="not RabbitMQ's"):
        rabbitmq.exported("node_load1 3\n")


# -- certificates --------------------------------------------------------------


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that is good for 40 days, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", "key", "-out", "cert", "-days", "40", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    return both


def end_of(pem: Path) -> float:
    said = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", str(pem)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    end = said.strip().partition("=")[2]
    return datetime.strptime(end, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp()


@pytest.fixture
def tls_port(pem: Path) -> Iterator[int]:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                context.wrap_socket(self.request, server_side=True).close()
            except OSError:
                return  # the client did not like it, and that is the test

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_the_end_of_a_file_with_certificates_is_that_of_the_first_to_end(pem: Path) -> None:
    config = Config(packs=Packs(certificate_files=(str(pem.parent / "*.pem"),)))
    points = collected(certificate.Certificate(config))
    left = only(points, "certificate", source=str(pem))["seconds_left"]
    assert 39 * 86_400 < left <= 40 * 86_400
    assert certificates.of_file(str(pem)).expires_at == end_of(pem)


def test_a_service_with_a_certificate_of_its_own_authority_is_trusted_with_that_authority(
    pem: Path, tls_port: int
) -> None:
    seen = certificates.of_host(f"localhost:{tls_port}", str(pem))
    assert (seen.expires_at, seen.trusted, seen.reason) == (end_of(pem), True, "")


def test_a_certificate_that_nobody_trusts_still_tells_its_end(pem: Path, tls_port: int) -> None:
    seen = certificates.of_host(f"localhost:{tls_port}")
    assert (seen.expires_at, seen.trusted) == (end_of(pem), False)
    assert "self" in seen.reason


def test_what_shows_no_certificate_is_said(free_port: int, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    config = Config(
        packs=Packs(
            certificate_hosts=(f"127.0.0.1:{free_port}",),
            certificate_files=(str(tmp_path / "empty.pem"), str(tmp_path / "none.pem")),
        )
    )
    points = collected(certificate.Certificate(config))
    assert points.points == []
    assert [text.rpartition(": ")[2] for text in points.warnings] == [
        "Connection refused", "holds no certificate in PEM form", "no such file"
    ]  # fmt: skip


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01", b"\x30\x82\xff\xff\x00", b"x" * 50])
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError, match="this is no certificate"):
        certificates.not_after(der)


# -- settings ------------------------------------------------------------------


def test_the_sections_of_the_packs_are_read_with_their_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[rabbitmq]\nurl = "https://mq:15671/"\nuser = "mon"\npassword_file = "{secret}"\n'
        '[mariadb]\ndefaults_file = "/etc/sentinella/mariadb.cnf"\n'
        '[memcached]\naddresses = ["a:11211", "b:11211"]\n'
        '[haproxy]\nsockets = ["/run/haproxy/admin.sock"]\n'
        '[certificates]\nhosts = ["cloud.example.org:5000"]\nfiles = ["/etc/ssl/*.pem"]\n'
    )
    packs = configuration.load(str(path), {}).packs
    assert (packs.rabbitmq_url, packs.rabbitmq_password) == ("https://mq:15671", "s3cret")
    assert packs.memcached == ("a:11211", "b:11211")
    assert packs.certificate_hosts == ("cloud.example.org:5000",)
    assert "s3cret" not in repr(packs)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[rabbitmq]\nurl = "amqp://mq"', "[rabbitmq] url"),
        ('[certificates]\nhosts = ["cloud"]', "'cloud' is written host:port"),
        ('[haproxy]\nsocket = "x"', "[haproxy] socket: no such option"),
    ],
)
def test_a_wrong_setting_of_a_pack_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        configuration.load(str(path), {})
    assert complaint in str(caught.value)


# -- who listens here ----------------------------------------------------------


def test_a_port_that_is_listened_on_is_found_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        assert Listeners().address(held.getsockname()[1]) == "127.0.0.1"


def test_the_kernel_and_its_files_say_the_same_of_who_listens() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as here,
        socket.create_server(("::", 0), family=socket.AF_INET6) as everywhere,
        socket.create_connection(here.getsockname()) as connection,
    ):
        listening = {here.getsockname()[1], everywhere.getsockname()[1]}
        held = listening | {connection.getsockname()[1]}
        asked = {one for one in ports.listeners("/proc") if one.port in held}
        read = {one for one in ports.listeners("/proc/self") if one.port in held}
    assert asked == read
    assert {one.port for one in asked} == listening


def test_a_connection_is_no_listener_and_all_addresses_are_loopback(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    rest = "00000000:00000000 00:00000000 00000000 0 0 81 1\n"
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(
        head
        + f"   0: 00000000:0CEA 00000000:0000 0A {rest}"
        + f"   1: 0100007F:1628 0100007F:9999 01 {rest}"
    )
    (tmp_path / "net/tcp6").write_text(
        head + f"   0: 00000000000000000000000001000000:2BCB 0:0 0A {rest}"
    )
    listeners = Listeners(str(tmp_path))
    assert listeners.address(3306) == "127.0.0.1"
    assert listeners.address(5672) == ""
    assert listeners.address(11211) == "::1"
