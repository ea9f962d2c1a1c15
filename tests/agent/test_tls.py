"""Over TLS, through a proxy, with certificates of one's own."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent_client.config import Config
from agent_client.spool import Spool
from agent_client.transport import Sender

from .conftest import ReportServer


class Authority:
    """A private certificate authority."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Private CA")])
        self._certificate = self._sign(self._name, self._key, True)
        self.file = str(self._write("ca", self._certificate, None))

    def issue(
        self, name: str, days: tuple[int, int] = (-1, 1), address: str = "127.0.0.1"
    ) -> tuple[str, str]:
        """Files of a certificate for an address and of its key; good from and until those days."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._write(name, self._sign(subject, key, False, days, address), key)
        return str(certificate), str(certificate.with_suffix(".key"))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        ca: bool,
        days: tuple[int, int] = (-1, 1),
        address: str = "127.0.0.1",
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None
    ) -> Path:
        path = self.directory / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            path.with_suffix(".key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return path


class Proxy:
    """A proxy that opens tunnels for those who know its password."""

    def __init__(self, user: str, password: str) -> None:
        self._expected = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.tunnels: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._open, args=(connection,), daemon=True).start()

    def _open(self, connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += connection.recv(4096)
        if f"Proxy-Authorization: Basic {self._expected}".encode() not in asked:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            connection.close()
            return
        target = asked.split()[1].decode()
        self.tunnels.append(target)
        host, _, port = target.rpartition(":")
        further = socket.create_connection((host, int(port)))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for one, other in ((connection, further), (further, connection)):
            threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass  # one of the two has gone
        finally:
            other.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[Callable[..., ReportServer]]:
    made: list[ReportServer] = []

    def make(asks_for: str = "", shows: tuple[str, str] | None = None) -> ReportServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*(shows or authority.issue("server")))
        if asks_for:
            context.load_verify_locations(asks_for)
            context.verify_mode = ssl.CERT_REQUIRED
        made.append(ReportServer(context))
        return made[-1]

    yield make
    for server in made:
        server.close()


def deliver(config: Config, directory: Path, **settings: str) -> str:
    """Send one report; returns what went wrong, or nothing."""
    spool = Spool(str(directory / "tls-state"))
    sequence = spool.append(time.time(), lambda number: ({"agent": "a", "epoch": spool.epoch,
                                                  "sequence": number}, 0, 0), {})  # fmt: skip
    sender = Sender(dataclasses.replace(config, **settings), spool)
    sender.work(sequence, 10)
    sender.close()
    spool.close()
    return sender.state.last_error


def test_a_private_authority_is_trusted_when_it_is_named(
    tls_server: Callable[..., ReportServer], authority: Authority,
    make_config: Callable[..., Config], tmp_path: Path,
) -> None:  # fmt: skip
    server = tls_server()
    config = make_config(server.url)
    assert "set `ca_file`" in deliver(config, tmp_path)
    assert not server.reports
    assert "No such file" in deliver(config, tmp_path, ca_file="/nowhere/ca.pem")
    assert deliver(config, tmp_path, ca_file=authority.file) == ""
    assert len(server.reports) == 3


@pytest.mark.parametrize(
    ("days", "address", "mend"),
    [
        ((-3, -1), "127.0.0.1", "renew it"),
        ((1, 3), "127.0.0.1", "clock"),
        ((-1, 1), "192.0.2.1", "the name that it is for"),
    ],
    ids=["expired", "not valid yet", "of another host"],
)
def test_a_certificate_that_does_not_hold_gets_no_key_and_the_right_mend(
    days: tuple[int, int], address: str, mend: str,
    tls_server: Callable[..., ReportServer], authority: Authority,
    make_config: Callable[..., Config], tmp_path: Path,
) -> None:  # fmt: skip
    server = tls_server(shows=authority.issue("bad", days, address))
    said = deliver(make_config(server.url), tmp_path, ca_file=authority.file)
    assert "is not trusted" in said
    assert mend in said
    assert "ca_file" not in said
    assert server.requests == []


def test_a_certificate_of_another_authority_gets_no_key(
    tls_server: Callable[..., ReportServer], authority: Authority,
    make_config: Callable[..., Config], tmp_path: Path,
) -> None:  # fmt: skip
    other = Authority(tmp_path / "other")
    server = tls_server(shows=other.issue("server"))
    said = deliver(make_config(server.url), tmp_path, ca_file=authority.file)
    assert "set `ca_file`" in said
    assert server.requests == []


def test_the_agent_shows_its_certificate_where_the_server_wants_one(
    tls_server: Callable[..., ReportServer], authority: Authority,
    make_config: Callable[..., Config], tmp_path: Path,
) -> None:  # fmt: skip
    server = tls_server(asks_for=authority.file)
    config = make_config(server.url)
    certificate, key = authority.issue("agent")
    # Whether the server's word reaches us before its hanging up does is a race.
    without = deliver(config, tmp_path, ca_file=authority.file)
    assert "set `client_cert`" in without or "cannot be reached" in without
    other_key = authority.issue("other")[1]
    said = deliver(
        config, tmp_path, ca_file=authority.file, client_cert=certificate, client_key=other_key
    )
    assert "client_cert" in said
    assert "belong together" in said
    assert not server.reports
    assert deliver(
        config, tmp_path, ca_file=authority.file, client_cert=certificate, client_key=key
    ) == ""  # fmt: skip
    assert len(server.reports) == 3


def test_a_proxy_is_told_its_password_and_tunnels(
    tls_server: Callable[..., ReportServer], authority: Authority,
    make_config: Callable[..., Config], tmp_path: Path,
) -> None:  # fmt: skip
    server = tls_server()
    proxy = Proxy("me", "p@ss:word")
    config = make_config(server.url)
    try:
        wrong = deliver(
            config, tmp_path, ca_file=authority.file, proxy=f"http://me:wrong@{proxy.address}"
        )
        assert "407" in wrong
        right = f"http://me:p%40ss%3Aword@{proxy.address}"
        assert deliver(config, tmp_path, ca_file=authority.file, proxy=right) == ""
    finally:
        proxy.close()
    assert proxy.tunnels == [server.url.rpartition("/")[2]]
    assert len(server.reports) == 2
