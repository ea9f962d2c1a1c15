"""The doctor finds each of many broken set-ups, names it, and says how to mend it.

Everything broken here is really broken: sockets, certificates, proxies, files, rights.
"""

from __future__ import annotations

import datetime
import http.server
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent_client import cli, doctor
from agent_client.agent import sole_use
from agent_client.config import load
from agent_client.doctor import host
from agent_client.doctor.findings import agent_user
from agent_client.identity import agent_id
from agent_client.spool import Spool
from agent_client.wire import REPORTS_PATH, SERVER_PATH

ROOT = Path(__file__).parents[2]
KEY = "snt_doctor_0123456789"
NOBODY = 65534
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def problem_document(status: int, code: str) -> tuple[int, str, bytes]:
    body = {"type": f"/problems/{code}", "title": code, "status": status, "detail": f"{code}!"}
    return status, "application/problem+json", json.dumps(body).encode()


class Product:
    """Answers as the product does to a report without reports, or as it is told."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answer = problem_document(400, "no-reports")
        self.headers: dict[str, str] = {}
        self.agent = ""
        self.clock_offset = 0.0
        self.hangs: threading.Event | None = None
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(self.path)
                if outer.hangs is not None:
                    outer.hangs.wait(30)
                self._say(*outer.answer)

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer.agent:
                    self._say(200, "application/json", json.dumps({"agent": outer.agent}).encode())
                else:
                    self._say(*problem_document(403, "not-a-servers-key"))

            def _say(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(time.time() + outer.clock_offset)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away is part of the tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"{'https' if context else 'http'}://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Proxy:
    """Lets CONNECT through to anywhere on this machine, or refuses as it is told."""

    def __init__(self, wanted: str = "", status: str = "") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._wanted, self._status = wanted, status
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                came = connection.recv(4096)
                if not came:
                    return
                head += came
            if self._status:
                connection.sendall(f"{self._status}\r\n\r\n".encode())
                return
            if self._wanted and self._wanted.encode() not in head:
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            host, _, port = head.split(b" ")[1].decode().partition(":")
            with socket.create_connection((host, int(port))) as other:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=self._pump, args=(other, connection), daemon=True)
                back.start()
                self._pump(connection, other)
                back.join(5)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while came := source.recv(65_536):
                target.sendall(came)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other side is gone

    def close(self) -> None:
        self._listener.close()


class Authority:
    """Signs certificates; its own is in `file`."""

    def __init__(self, folder: Path, name: str = "Our own authority") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._builder(self._name, self._key, NOW - DAY, NOW + 30 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._pem(own.sign(self._key, hashes.SHA256())))

    def _builder(
        self, name: x509.Name, key: Any, since: datetime.datetime, until: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )

    @staticmethod
    def _pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)

    def context(
        self,
        host: str = "localhost",
        since: datetime.datetime = NOW - DAY,
        until: datetime.datetime = NOW + 30 * DAY,
    ) -> ssl.SSLContext:
        """What a server needs that calls itself `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = self._builder(name, key, since, until).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
        file = self.folder / f"{host}-{key.private_numbers().private_value % 10**9}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self._pem(made.sign(self._key, hashes.SHA256()))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[..., Product]]:
    """Starts products; all end with the test."""
    made: list[Product] = []

    def serve(context: ssl.SSLContext | None = None) -> Product:
        made.append(Product(context))
        return made[-1]

    yield serve
    for one in made:
        if one.hangs is not None:
            one.hangs.set()
        one.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration; what is not said is sound."""

    def write(server: str, agent: str = "", more: str = "", key: str = KEY) -> Path:
        path = tmp_path / "agent.toml"
        path.write_text(
            f'[agent]\nserver = "{server}"\nkey = "{key}"\nhost = "nova-1"\ntimeout = 2\n'
            f'state_dir = "{tmp_path}/state"\n{agent}\n[spool]\nmax_size = "1M"\n{more}\n'
        )
        path.chmod(0o600)
        (tmp_path / "state").mkdir(mode=0o755, exist_ok=True)
        return path

    return write


def examine(config: Path, now: Callable[[], float] = time.time, **environ: str) -> list[Any]:
    return doctor.examine(load(str(config), {}), environ, now)


def the_problem(found: list[Any], name: str, said: str, mend: str) -> None:
    """There is this problem, in these words, and no other."""
    problems = [one for one in found if one.state == doctor.PROBLEM]
    assert [one.name for one in problems] == [name], found
    assert said in problems[0].detail
    assert mend in problems[0].mend


def test_a_sound_set_up_has_no_problem(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority, tmp_path: Path
) -> None:
    product = serve(authority.context())
    config = write(product.url, f'ca_file = "{authority.file}"')
    product.agent = agent_id(str(tmp_path / "state"))
    found = examine(config)
    assert {one.state for one in found} <= {doctor.OK, doctor.WARNING}
    assert [one.name for one in found if one.state == doctor.WARNING] == ["agent"], "none runs"
    assert {one.name for one in found} >= {
        "configuration", "state directory", "time zone", "connection", "certificate", "clock",
        "server", "key",
    }  # fmt: skip
    assert product.asked == [REPORTS_PATH, SERVER_PATH]


# The key


@pytest.mark.parametrize(
    ("answer", "said", "mend"),
    [
        (problem_document(401, "unknown-key"), "not known", "sentinella enrol"),
        (problem_document(401, "revoked-key"), "revoked", "sentinella enrol"),
        (problem_document(403, "wrong-scope"), "may not send", "sentinella enrol"),
    ],
)
def test_a_key_that_is_not_good(
    serve: Callable[..., Product], write: Callable[..., Path], answer: Any, said: str, mend: str
) -> None:
    product = serve()
    product.answer = answer
    the_problem(examine(write(product.url)), "key", said, mend)


def test_a_key_of_another_agent(
    serve: Callable[..., Product], write: Callable[..., Path], tmp_path: Path
) -> None:
    product = serve()
    config = write(product.url)
    agent_id(str(tmp_path / "state"))
    product.agent = "0b7f5a52-54a1-4a6e-9c60-5a2f1f9f3c11"
    the_problem(examine(config), "key", "is of agent 0b7f5a52", "enrol this host")


# The server


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, "text/html", b"<h1>Not found</h1>"), "old Sentinella, or none"),
        (problem_document(404, "not-found"), "old Sentinella, or none"),
        ((200, "text/html", b"<h1>Welcome to the hotel</h1>"), "old Sentinella, or none"),
        ((502, "text/html", b"<h1>Bad gateway</h1>"), "not able to answer (502)"),
        (problem_document(503, "unavailable"), "not able to answer (503)"),
    ],
)
def test_a_server_that_is_old_another_or_in_trouble(
    serve: Callable[..., Product], write: Callable[..., Path], answer: Any, said: str
) -> None:
    product = serve()
    product.answer = answer
    the_problem(examine(write(product.url)), "server", said, "server")


def test_a_server_that_moved(serve: Callable[..., Product], write: Callable[..., Path]) -> None:
    product = serve()
    product.answer = (301, "text/html", b"")
    product.headers["Location"] = "https://new.example/"
    the_problem(examine(write(product.url)), "server", "https://new.example/", "set `server`")


def test_a_server_that_hangs(serve: Callable[..., Product], write: Callable[..., Path]) -> None:
    product = serve()
    product.hangs = threading.Event()
    the_problem(
        examine(write(product.url)), "server", "does not answer in 2 s", "look at the server"
    )


def test_a_port_that_is_closed(write: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = examine(write(f"http://127.0.0.1:{port}"))
    the_problem(found, "connection", "nothing listens", "correct `server`")


def test_a_port_that_swallows_everything(write: Callable[..., Path]) -> None:
    """A full accept queue: the kernel drops what more comes, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        held = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            held.append(one)
        found = examine(write(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        for one in held:
            one.close()
    the_problem(found, "connection", "does not answer", "firewalls")


def test_a_name_that_nobody_knows(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_knows(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)
    found = examine(write("https://sentinella.invalid"))
    the_problem(found, "name", "sentinella.invalid is not known", "getent hosts")


# Certificates and clocks


def test_a_certificate_of_an_unknown_authority(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority, tmp_path: Path
) -> None:
    product = serve(authority.context())
    the_problem(examine(write(product.url)), "certificate", "not known", "set `ca_file`")
    other = Authority(tmp_path, "Another one")
    found = examine(write(product.url, f'ca_file = "{other.file}"'))
    the_problem(found, "certificate", "not known", "correct ca_file")


def test_a_certificate_for_another_name(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority
) -> None:
    product = serve(authority.context("elsewhere.example"))
    found = examine(write(product.url, f'ca_file = "{authority.file}"'))
    the_problem(found, "certificate", "another name than localhost", "write in `server` the name")


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [(NOW - 2 * DAY, NOW - DAY, "has expired"), (NOW + DAY, NOW + 2 * DAY, "is not valid yet")],
)
def test_a_certificate_out_of_its_time(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority,
    since: datetime.datetime, until: datetime.datetime, said: str,
) -> None:  # fmt: skip
    product = serve(authority.context(since=since, until=until))
    found = examine(write(product.url, f'ca_file = "{authority.file}"'))
    the_problem(found, "certificate", said, "clock first")


def test_tls_where_there_is_none_and_none_where_there_is(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority
) -> None:
    plain, secured = serve(), serve(authority.context())
    found = examine(write(plain.url.replace("http", "https")))
    the_problem(found, "certificate", "does not speak TLS", "http://")
    found = examine(write(secured.url.replace("https", "http")))
    the_problem(found, "server", "no HTTP answer", "https://")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority,
    tmp_path: Path, content: str | None,
) -> None:  # fmt: skip
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    product = serve(authority.context())
    problems = [
        one
        for one in examine(write(product.url, f'ca_file = "{path}"'))
        if one.state == doctor.PROBLEM
    ]
    assert {one.name for one in problems} == {"ca_file"}
    assert "PEM" in problems[0].mend


def test_a_certificate_of_its_own_that_is_none(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority
) -> None:
    product = serve(authority.context())
    found = examine(
        write(product.url, f'ca_file = "{authority.file}"\nclient_cert = "{authority.file}"')
    )
    the_problem(found, "client_cert", "cannot be used", "PEM form")


@pytest.mark.parametrize(
    ("offset", "state", "said"),
    [(3600, doctor.PROBLEM, "behind"), (-3600, doctor.PROBLEM, "ahead"),
     (20, doctor.WARNING, "behind"), (2, doctor.OK, "agrees"),
     (365 * 86_400, doctor.PROBLEM, "365.0 days behind the server: one of the two is wrong")],
)  # fmt: skip
def test_a_clock_that_is_off(
    serve: Callable[..., Product], write: Callable[..., Path], offset: float, state: str, said: str
) -> None:
    product = serve()
    product.clock_offset = offset
    (clock,) = [one for one in examine(write(product.url)) if one.name == "clock"]
    assert clock.state == state
    assert said in clock.detail
    assert state == doctor.OK or "timedatectl" in clock.mend


# Proxies


def test_a_proxy_that_lets_through(
    serve: Callable[..., Product], write: Callable[..., Path], authority: Authority
) -> None:
    proxy, product = Proxy("Basic bWU6c2VjcmV0"), serve(authority.context())
    found = examine(
        write(
            product.url,
            f'proxy = "http://me:secret@127.0.0.1:{proxy.port}"\nca_file = "{authority.file}"',
        )
    )
    proxy.close()
    assert [one for one in found if one.state == doctor.PROBLEM] == []
    assert any("lets through" in one.detail for one in found)


@pytest.mark.parametrize(
    ("user", "wanted", "status", "said"),
    [
        ("", "Basic bWU6c2VjcmV0", "", "wants a user"),
        ("me:wrong@", "Basic bWU6c2VjcmV0", "", "refuses user and password"),
        ("", "", "HTTP/1.1 403 Forbidden", "does not let through"),
        ("", "", "SSH-2.0-OpenSSH_9.2", "is no HTTP proxy"),
    ],
)
def test_a_proxy_that_does_not(
    write: Callable[..., Path], user: str, wanted: str, status: str, said: str
) -> None:
    proxy = Proxy(wanted, status)
    found = examine(write("https://localhost:9", f'proxy = "http://{user}127.0.0.1:{proxy.port}"'))
    proxy.close()
    the_problem(found, "proxy", said, "proxy")
    assert "wrong" not in str(found), "no password is shown"


def test_a_proxy_that_is_not_there(write: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = examine(write("https://localhost:9", f'proxy = "http://127.0.0.1:{port}"'))
    the_problem(found, "proxy", "nothing listens", "correct `proxy`")


# Files and rights


def test_a_configuration_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\nintervall = 3\n")
    assert cli.main(["-c", str(path), "doctor"]) == 1
    out = capsys.readouterr().out
    assert "intervall: no such option" in out
    assert "mend: correct the file" in out


def test_nothing_configured_at_all(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nstate_dir = "{tmp_path}"\nhost = "h"\n')
    problems = [one for one in examine(path) if one.state == doctor.PROBLEM]
    assert ["no server" in problems[0].detail, "no key" in problems[1].detail] == [True, True]
    assert all("enrol" in one.mend for one in problems)


def test_a_secret_that_others_may_read(
    serve: Callable[..., Product], write: Callable[..., Path]
) -> None:
    config = write(serve().url)
    config.chmod(0o644)
    the_problem(examine(config), "secrets", "others may read it", f"chmod 600 {config}")


def test_a_host_that_has_no_name_of_its_own(
    serve: Callable[..., Product], write: Callable[..., Path]
) -> None:
    config = write(serve().url)
    config.write_text(config.read_text().replace("nova-1", "localhost"))
    the_problem(examine(config), "host name", "localhost", "hostnamectl")


def test_a_disk_that_takes_no_more(
    serve: Callable[..., Product], write: Callable[..., Path]
) -> None:
    """A limit of the file size stands for a full disk: writing fails, all else goes on."""
    config = load(str(write(serve().url)), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        found = doctor.examine(config, {}, time.time)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    the_problem(found, "disk", "nothing can be written", "free space")


def test_a_disk_that_is_really_full(write: Callable[..., Path], tmp_path: Path) -> None:
    config = write("")
    script = (
        f"mount -t tmpfs -o size=64k none {tmp_path}/state && "
        f"{{ head -c 60000 /dev/zero > {tmp_path}/state/filler; "
        f"'{sys.executable}' -m agent_client.cli -c {config} doctor --json; }}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout:
        pytest.skip("no file system can be mounted here")
    (disk,) = [one for one in json.loads(done.stdout)["findings"] if one["name"] == "disk"]
    assert disk["state"] == doctor.PROBLEM
    assert "No space left" in disk["detail"]


def test_a_disk_on_which_the_spool_will_not_fit(write: Callable[..., Path]) -> None:
    config = write("")
    config.write_text(config.read_text().replace('"1M"', '"900000G"'))
    (disk,) = [one for one in examine(config) if one.name == "disk"]
    assert disk.state == doctor.WARNING
    assert "max_size" in disk.mend


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act for another user")


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A configuration of an agent that runs as nobody, beside a state directory that is nobody's.

    It lies where nobody may go, unlike what pytest makes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir(mode=0o755)
        os.chown(folder / "state", NOBODY, NOBODY)
        config = folder / "agent.toml"
        config.write_text(
            f'[agent]\nkey = "{KEY}"\nhost = "nova-1"\nstate_dir = "{folder}/state"\n'
            '[spool]\nmax_size = "1M"\n'
        )
        os.chown(config, 0, NOBODY)
        config.chmod(0o640)
        yield config


def with_no_server(found: list[Any]) -> list[Any]:
    return [one for one in found if "no server is named" not in one.detail]


@needs_root
def test_files_are_looked_at_with_the_rights_of_the_agents_user(foreign: Path) -> None:
    assert not [one for one in with_no_server(examine(foreign)) if one.state == doctor.PROBLEM]


@needs_root
def test_a_configuration_that_the_agent_may_not_read(foreign: Path) -> None:
    os.chown(foreign, 0, 0)
    foreign.chmod(0o600)
    found = with_no_server(examine(foreign))
    the_problem(found, "configuration", "cannot be read by nobody", "chmod 640")


@needs_root
def test_a_state_directory_that_may_not_be_written(foreign: Path) -> None:
    (foreign.parent / "state").chmod(0o500)
    found = with_no_server(examine(foreign))
    the_problem(found, "state directory", "cannot be written by nobody", "chown -R nobody")


@needs_root
def test_a_log_that_may_not_be_read(foreign: Path) -> None:
    log = foreign.parent / "nova.log"
    log.write_text("x")
    log.chmod(0o640)
    foreign.write_text(foreign.read_text() + f'[logs.nova]\npath = "{log}"\n')
    found = with_no_server(examine(foreign))
    the_problem(found, "logs", "nova.log cannot be read by nobody", f"setfacl -m u:nobody:r {log}")
    os.chown(log, 0, 4)
    found = with_no_server(examine(foreign))
    the_problem(found, "logs", "nova.log cannot be read by nobody", "usermod -aG adm nobody")


@needs_root
def test_a_log_directory_that_may_not_be_looked_into(foreign: Path) -> None:
    (foreign.parent / "closed").mkdir(mode=0o700)
    foreign.write_text(
        foreign.read_text() + f'[logs.nova]\npath = "{foreign.parent}/closed/*.log"\n'
    )
    found = with_no_server(examine(foreign))
    the_problem(found, "logs", "cannot be looked into by nobody", "setfacl")


def test_a_log_file_of_its_own_that_cannot_be_written(write: Callable[..., Path]) -> None:
    found = with_no_server(examine(write("", 'log_file = "/proc/version/agent.log"')))
    the_problem(found, "log_file", "cannot be written", "chown")


# The agent, its spool, its time


def test_another_agent_on_the_same_state(write: Callable[..., Path], tmp_path: Path) -> None:
    config = write("")
    (tmp_path / "state" / "status.json").write_text('{"config": "/etc/other/agent.toml"}')
    with sole_use(str(tmp_path / "state")):
        found = with_no_server(examine(config))
    the_problem(found, "agent", f"another agent (pid {os.getpid()})", "state_dir")
    assert "/etc/other/agent.toml" in str(found)


def test_an_agent_that_hangs(write: Callable[..., Path], tmp_path: Path) -> None:
    config = write("")
    (tmp_path / "state" / "status.json").write_text(
        json.dumps({"config": str(config), "interval": 60, "last_cycle_at": time.time() - 900})
    )
    with sole_use(str(tmp_path / "state")):
        found = with_no_server(examine(config))
    the_problem(found, "agent", "saw nothing for 900 s", "restart")


def test_a_spool_that_is_damaged(write: Callable[..., Path], tmp_path: Path) -> None:
    config = write("")
    Spool(str(tmp_path / "state")).close()
    with (tmp_path / "state" / "spool.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"rubbish" * 3000)
    found = with_no_server(examine(config))
    the_problem(found, "spool", "is damaged", "restart the agent")


def test_a_time_zone_that_nobody_knows(write: Callable[..., Path]) -> None:
    found = with_no_server(examine(write(""), TZ="Middle/Earth"))
    the_problem(found, "time zone", "Middle/Earth", "tzdata")


def test_plugins_that_are_not_there_fail_or_are_not_confined(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def f(agent): pass")
    more = '[plugins]\nmine = ["f"]\ngone = ["g"]'
    config = write("", f'plugin_paths = ["{tmp_path}"]', more)
    (tmp_path / "state" / "status.json").write_text(
        json.dumps(
            {
                "plugins": [
                    {"name": "mine.f", "ok": False, "detail": "KeyError: 'plugin_key'",
                     "missing": ["user: there is no user sentinella-plugin"]},
                ]
            }
        )
    )  # fmt: skip
    found = [one for one in examine(config) if one.name == "plugins"]
    assert [one.state for one in found] == [doctor.PROBLEM, doctor.WARNING, doctor.PROBLEM]
    assert "KeyError: 'plugin_key'" in found[0].detail
    assert "sentinella disable mine=f" in found[0].mend
    assert "no user sentinella-plugin" in found[1].detail
    assert "there is no module gone" in found[2].detail


def test_a_plugin_that_others_may_change(write: Callable[..., Path], tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text("def f(agent): pass")
    module.chmod(0o666)
    config = write("", f'plugin_paths = ["{tmp_path}"]', '[plugins]\nmine = ["f"]')
    found = with_no_server(examine(config))
    the_problem(found, "plugins", "mine is not run: others may write", f"chmod go-w {module}")


# What is printed


def test_each_finding_has_its_mend_on_the_screen_and_no_secret(
    serve: Callable[..., Product], write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    product = serve()
    product.answer = problem_document(401, "unknown-key")
    config = write(product.url)
    assert cli.main(["-c", str(config), "doctor"]) == 1
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("problem  key: "))
    assert lines[at + 1].startswith("         mend: take a token")
    assert cli.main(["-c", str(config), "doctor", "--json"]) == 1
    as_json = capsys.readouterr().out
    assert json.loads(as_json)["verdict"] == "problem"
    assert KEY not in shown + as_json


def test_a_pipe_among_the_logs_holds_doctor_up_no_more_than_a_folder(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "console.log")
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "nova.log").write_text("x\n")
    config = load(str(write("", more=f'[logs.nova]\npath = "{tmp_path}/*.log"\n')), {})
    found: list[Any] = []
    user = agent_user(config, None)
    looking = threading.Thread(target=lambda: found.extend(host.logs(config, user)), daemon=True)
    looking.start()
    looking.join(20)
    assert [one.detail for one in found] == ["1 files can be read"]
