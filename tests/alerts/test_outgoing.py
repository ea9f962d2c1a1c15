"""What people typed in leads to the internet, and nowhere else unless the owner says so."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from alerts.notifiers import Undelivered
from alerts.notifiers.slack import Slack
from alerts.notifiers.webhook import Webhook, new_secret
from sentinel_site.kit import outbound
from tests.alerts.builders import make_message
from tests.alerts.receivers import Receiver

PRIVATE = [
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:5ef5:79fd::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "4000::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["93.184.215.14", "2606:4700::6810:1", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"]


def send(url: str) -> None:
    Webhook().send({"url": url, "secret": new_secret()}, make_message())


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_leads_inside_is_not_asked(resolver, scheme, address):
    resolver.leads("hook.example.org", address)
    with pytest.raises(Undelivered, match="private network") as failure:
        send(f"{scheme}://hook.example.org/in")
    assert not failure.value.for_good


def test_one_address_inside_is_enough_to_refuse_a_name(resolver):
    resolver.leads("hook.example.org", ["93.184.215.14", "10.0.0.1"])
    with pytest.raises(Undelivered, match="private network"):
        send("https://hook.example.org/in")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0"])
@pytest.mark.parametrize("kind", ["slack", "webhook"])
def test_nobody_asks_this_machine_unless_allowed(receiver, resolver, kind, host):
    resolver.leads("2130706433", "127.0.0.1")
    resolver.leads("0x7f.1", "127.0.0.1")
    resolver.leads("0", "0.0.0.0")  # noqa: S104
    url = f"http://{host}:{receiver.server_port}/in"
    config = {"url": url, "secret": new_secret()}
    with pytest.raises(Undelivered, match="private network"):
        (Slack() if kind == "slack" else Webhook()).send(config, make_message())
    assert receiver.requests == []


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_may_be_asked(resolver, monkeypatch, address):
    reached = []

    def connect(entries, end):
        reached.extend(entries)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(outbound, "_connect", connect)
    resolver.leads("hook.example.org", address)
    with pytest.raises(Undelivered, match="nobody there"):
        send("https://hook.example.org/in")
    assert [entry[1][0] for entry in reached] == [address]


def test_only_the_networks_that_the_owner_names_are_allowed(receiver, resolver, settings):
    settings.OUTGOING_PRIVATE_NETWORKS = [ip_network("10.0.0.0/8"), ip_network("127.0.0.0/30")]
    resolver.leads("in.example.org", "127.0.0.1")
    send(f"http://in.example.org:{receiver.server_port}/hook")
    assert len(receiver.requests) == 1
    for inside in ("127.0.0.4", "192.168.0.1", "::1"):
        resolver.leads("in.example.org", inside)
        with pytest.raises(Undelivered, match="private network"):
            send(f"http://in.example.org:{receiver.server_port}/hook")


def test_a_name_that_changes_its_mind_gains_nothing(resolver, settings):
    settings.OUTGOING_PRIVATE_NETWORKS = [ip_network("127.0.0.1/32")]
    with Receiver().open() as checked, Receiver("127.0.0.2", checked.server_port).open() as inside:
        resolver.leads("rebind.example.org", "127.0.0.1", "127.0.0.2")
        send(f"http://rebind.example.org:{checked.server_port}/hook")
        assert resolver.asked == ["rebind.example.org"]
        assert (len(checked.requests), inside.requests) == (1, [])
        host = checked.requests[0][0]["Host"]
        assert host == f"rebind.example.org:{checked.server_port}"
        with pytest.raises(Undelivered, match="private network"):
            send(f"http://rebind.example.org:{checked.server_port}/hook")
        assert inside.requests == []


def test_the_next_address_is_tried_when_one_takes_no_connection(resolver, settings):
    settings.OUTGOING_PRIVATE_NETWORKS = [ip_network("127.0.0.0/8")]
    with Receiver().open() as there:
        resolver.leads("two.example.org", ["127.0.0.2", "127.0.0.1"])
        send(f"http://two.example.org:{there.server_port}/hook")
        assert len(there.requests) == 1


def test_the_path_and_query_are_asked_for_as_they_are_given(receiver, loopback):
    send(f"http://127.0.0.1:{receiver.server_port}/in//%2F?token=a/b&c=%20#part")
    assert receiver.paths == ["/in//%2F?token=a/b&c=%20"]


@pytest.mark.parametrize(
    ("certified", "taken"), [("hook.example.org", True), ("other.example.org", False)]
)
def test_tls_holds_the_certificate_to_the_name(
    resolver, loopback, tmp_path, monkeypatch, certified, taken
):
    tls = certificate(tmp_path, certified)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    resolver.leads("hook.example.org", "127.0.0.1")
    with Receiver().open(tls) as there:
        with contextlib.nullcontext() if taken else pytest.raises(Undelivered, match="ertificate"):
            send(f"https://hook.example.org:{there.server_port}/in")
        assert len(there.requests) == int(taken)
    assert tls.asked_for == ["hook.example.org"]


class Context(ssl.SSLContext):
    """A server's side that notes the names it was asked for."""

    asked_for: list[str | None]


def certificate(directory: Path, name: str) -> Context:
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    own = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = directory / "own.pem", directory / "own.key"
    pem.write_bytes(own.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tls = Context(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, secret)
    tls.asked_for = []
    tls.sni_callback = lambda _, asked, __: tls.asked_for.append(asked)
    return tls


def test_a_redirect_is_told_without_its_path_and_not_followed(receiver, loopback):
    with Receiver().open() as second:
        receiver.answer = 307
        receiver.headers = {"Location": "http://elsewhere.example.org/secret"}
        with pytest.raises(Undelivered, match=r"redirect to elsewhere\.example\.org") as failure:
            send(receiver.url)
        assert "secret" not in str(failure.value)
        receiver.headers = {"Location": second.url}
        with pytest.raises(Undelivered, match="307"):
            send(receiver.url)
        assert second.requests == []


def test_proxies_of_the_environment_are_not_asked(receiver, loopback, monkeypatch):
    with Receiver().open() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        send(receiver.url)
        assert (len(receiver.requests), proxy.requests) == (1, [])


@contextlib.contextmanager
def server(talk):
    """A server that does with each connection what `talk` says, until the test is over."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                talk(connection, over)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            thread.join(5)


def drip(beginning: bytes):
    def talk(connection, over):
        connection.sendall(beginning)
        while not over.wait(0.02):
            connection.sendall(b"x")

    return talk


@pytest.mark.parametrize(
    "beginning",
    [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1999\r\n\r\n"],
)
def test_an_answer_that_comes_byte_by_byte_is_cut_off(loopback, monkeypatch, beginning):
    monkeypatch.setattr(outbound, "LONGEST", 0.4)
    with server(drip(beginning)) as url:
        with pytest.raises(Undelivered, match=r"0\.4 s") as failure:
            send(url)
        assert not failure.value.for_good


def test_one_that_says_nothing_is_cut_off(loopback, monkeypatch):
    monkeypatch.setattr(outbound, "LONGEST", 0.4)
    with (
        server(lambda _, over: over.wait()) as url,
        pytest.raises(Undelivered, match=r"0\.4 s|timed out"),
    ):
        send(url)


def test_a_name_server_that_says_nothing_is_not_waited_for(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: over.wait() and [])
    monkeypatch.setattr(outbound, "_LOOK_UP", 0.2)
    try:
        with pytest.raises(Undelivered, match="cannot be found"):
            send("https://hook.example.org/")
    finally:
        over.set()


def test_of_an_endless_answer_the_beginning_is_read(loopback):
    def talk(connection, over):
        connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"endless " * 10_000)

    with server(talk) as url:
        began = time.monotonic()
        with pytest.raises(Undelivered, match="answered 400: endless") as failure:
            send(url)
        assert len(str(failure.value)) < 2_100
        assert time.monotonic() - began < outbound.LONGEST, "it did not have to be cut off"


def test_what_is_no_http_is_tried_again(loopback):
    with server(lambda connection, _: connection.sendall(b"220 mail ready\r\n")) as url:
        with pytest.raises(Undelivered) as failure:
            send(url)
        assert not failure.value.for_good


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bot",
        "ftp://bot.example.org/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "https://",
        "https:///path",
        "https://[",
        "https://bot.example.org:99999/",
        "https://bot.example.org:0/",
        "https://me@bot.example.org/",
        "https://me:word@bot.example.org/",
        "https://bot.example.org@127.0.0.1/",
        "https://:@127.0.0.1/",
        "https://bot.example.org\\@127.0.0.1/",
        "https://bot.example.org/\r\nX-More: 1",
        "https://bot.example.org/ x",
        "https://bücher.example/",
    ],
)
def test_what_is_no_address_is_said_when_it_is_typed_and_never_asked(resolver, url):
    assert Webhook().errors({"url": url})
    with pytest.raises(Undelivered):
        send(url)
    assert resolver.asked == []


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC])
def test_public_and_private_are_told_apart(address):
    meant = outbound._meant(ip_address(address.partition("%")[0]))
    assert outbound.is_public(meant) is (address in PUBLIC)
