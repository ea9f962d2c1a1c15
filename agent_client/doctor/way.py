"""Looks at the way to the server step by step; the first that fails is the one that is named."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import json
import os
import socket
import ssl
import time
from typing import Any, Callable, Iterable
from urllib.parse import unquote, urlsplit

from agent_client.bounded import ends_within
from agent_client.config import Config
from agent_client.doctor.findings import PROBLEM, WARNING, Finding, fine, problem
from agent_client.skew import CORRECT_UP_TO
from agent_client.wire import REPORTS_PATH, SERVER_PATH, VERSION

#: Seconds by which the clocks may differ before it is said, and before it is a problem.
SKEW_WARNING, SKEW_PROBLEM = 5.0, 60.0


class _Stop(Exception):
    """A step failed: what comes after it cannot be looked at."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


def server(config: Config, now: Callable[[], float]) -> list[Finding]:
    """Name, port, proxy, certificate, product, key, clock: each step stands on the one before."""
    if not config.server:
        return []
    found: list[Finding] = []
    try:
        with contextlib.closing(_connected(config, found)) as sock:
            _asked(config, sock, found, now)
    except _Stop as stop:
        found.append(stop.finding)
    return found


def _connected(config: Config, found: list[Finding]) -> socket.socket:
    parts = urlsplit(config.server)
    https = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if https else 80)
    proxy = urlsplit(config.proxy) if config.proxy else None
    if proxy is not None:
        sock = _tcp("proxy", proxy.hostname or "", proxy.port or 3128, config.timeout, found)
        if https:
            _tunnel(sock, proxy, host, port)
            found.append(fine("proxy", f"{proxy.hostname} lets through to {host}:{port}"))
    else:
        sock = _tcp("connection", host, port, config.timeout, found)
    return _tls(config, sock, host, port, found) if https else sock


def _tcp(name: str, host: str, port: int, timeout: float, found: list[Finding]) -> socket.socket:
    setting = "proxy" if name == "proxy" else "server"
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise _Stop(
            problem(
                "name",
                f"{host} is not known: {error}",
                f"correct `{setting}`, /etc/resolv.conf or /etc/hosts; try: getent hosts {host}",
            )
        ) from None
    failure: OSError | None = None
    for family, kind, number, _, address in addresses:
        sock = socket.socket(family, kind, number)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except OSError as error:
            failure = error
            sock.close()
            continue
        found.append(fine(name, f"{host} ({address[0]}), port {port}"))
        return sock
    where = f"{host}, port {port}"
    if isinstance(failure, ConnectionRefusedError):
        text, mend = (
            "refuses: nothing listens there",
            f"correct `{setting}`, or start what serves it",
        )
    elif isinstance(failure, socket.timeout):
        text = "does not answer: something on the way swallows it"
        mend = f"open the port in the firewalls between; try: nc -vz {host} {port}"
    else:
        text = f"cannot be reached: {failure.strerror if failure else 'no address'}"
        mend = f"look at routes and interfaces; try: ip route get {host}"
    raise _Stop(problem(name, f"{where} {text}", mend))


def _tunnel(sock: socket.socket, proxy: Any, host: str, port: int) -> None:
    """Have the proxy connect on, as RFC 9110, 9.3.6 has it."""
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if proxy.username:
        said = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(said.encode()).decode())
    try:
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65_536:
            came = sock.recv(4096)
            if not came:
                break
            head += came
    except OSError as error:
        raise _Stop(
            problem(
                "proxy",
                f"{proxy.hostname} does not answer as a proxy: {error}",
                "correct `proxy`",
            )
        ) from None
    status = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    code = status[1] if len(status) > 1 and status[0].startswith("HTTP/") else ""
    if code == "200":
        return
    if code == "407":
        text = "wants a user and password" if not proxy.username else "refuses user and password"
        mend = "set `proxy` to http://user@host:port and proxy_password_file"
    elif code:
        text = f"does not let through to {host}:{port} ({' '.join(status[1:])})"
        mend = "have that address allowed in the proxy, or set another `proxy`"
    else:
        text, mend = "is no HTTP proxy", "correct `proxy`"
    raise _Stop(problem("proxy", f"{proxy.hostname} {text}", mend))


def _tls(
    config: Config, sock: socket.socket, host: str, port: int, found: list[Finding]
) -> socket.socket:
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        sock.close()
        raise _Stop(
            problem(
                "ca_file",
                f"{config.ca_file} holds no certificate: {error}",
                "put the authority's certificate there, in PEM form",
            )
        ) from None
    try:
        if config.client_cert:
            context.load_cert_chain(config.client_cert, config.client_key or None)
    except (OSError, ssl.SSLError) as error:
        sock.close()
        raise _Stop(
            problem(
                "client_cert",
                f"{config.client_cert} and its key cannot be used: {error}",
                "put certificate and key there, in PEM form, readable by the agent's user",
            )
        ) from None
    try:
        secured = context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise _Stop(_untrusted(error, host, port, config)) from None
    except ssl.SSLError as error:
        plain = error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
        raise _Stop(
            problem(
                "certificate",
                f"{host}:{port} does not speak TLS" if plain else f"TLS fails: {error.reason}",
                "write http:// in `server`, or correct the port"
                if plain
                else "see the server's TLS settings: versions, ciphers, client certificates",
            )
        ) from None
    except OSError as error:
        raise _Stop(
            problem(
                "certificate",
                f"{host}:{port} breaks TLS off: {error}",
                f"something between may interfere; try: openssl s_client -connect {host}:{port}",
            )
        ) from None
    found.append(fine("certificate", f"{host}, {secured.version()}"))
    return secured


def _untrusted(
    error: ssl.SSLCertVerificationError, host: str, port: int, config: Config
) -> Finding:
    """OpenSSL's verdict in words; numbers of x509_vfy.h."""
    code, said = error.verify_code, error.verify_message
    if code in (9, 10):
        date = time.strftime("%Y-%m-%d %H:%M")
        word = "not valid yet" if code == 9 else "has expired"
        return problem(
            "certificate",
            f"the certificate of {host} is {word}".replace("is has", "has"),
            f"look at this host's clock first (it says {date}: timedatectl), then renew it",
        )
    if code in (62, 64):
        return problem(
            "certificate",
            f"the certificate is for another name than {host} ({said})",
            "write in `server` the name that the certificate has, or have one made for this name",
        )
    if code in (2, 18, 19, 20, 21):
        return problem(
            "certificate",
            f"who signed the certificate of {host} is not known ({said})",
            f"correct ca_file ({config.ca_file})"
            if config.ca_file
            else "set `ca_file` to your authority's certificate, or install ca-certificates",
        )
    return problem(
        "certificate",
        f"the certificate of {host} is not accepted: {said}",
        f"see it with: openssl s_client -connect {host}:{port} -showcerts",
    )


def _asked(
    config: Config, sock: socket.socket, found: list[Finding], now: Callable[[], float]
) -> None:
    """Ask with the key and no report: what comes back tells product, key and clock."""
    sock.settimeout(config.timeout)
    sent = now()
    status, headers, content = _request(config, sock, "POST", REPORTS_PATH, b'{"reports":[]}')
    got = now()
    ours = headers.get("Content-Type", "").startswith("application/problem+json")
    found += _clock(headers.get("Date"), sent, got)
    document = _json(content) if ours else {}
    where = config.server
    if 300 <= status < 400:
        raise _Stop(
            problem(
                "server",
                f"{where} sends on to {headers.get('Location')}",
                "set `server` to that address",
            )
        )
    if status == 407:
        raise _Stop(
            problem(
                "proxy",
                "the proxy wants a user and password, or refuses them",
                "set `proxy` to http://user@host:port and proxy_password_file",
            )
        )
    taken = 200 <= status < 300 and "accepted" in _json(content)
    if status in (404, 405) or (not ours and not taken and status < 500):
        raise _Stop(
            problem(
                "server",
                f"{where} answers ({status}), but has no door for reports: it is an old"
                " Sentinella, or none",
                "correct the address and path in `server`, or bring the server up to date",
            )
        )
    if status == 429 or status >= 500:
        raise _Stop(
            problem(
                "server",
                f"{where} is there and not able to answer ({status})",
                "look at the server; the agent keeps everything and tries again by itself",
            )
        )
    found.append(fine("server", f"{where} is a Sentinella server"))
    detail = str(document.get("detail") or document.get("title") or "")
    if status == 401:
        revoked = str(document.get("type", "")).endswith("/revoked-key")
        raise _Stop(
            problem(
                "key",
                f"the key was revoked or has run out: {detail}"
                if revoked
                else "the key is not known to this server",
                "take a token from Servers, New server and run `sentinella enrol`"
                + ("" if revoked else "; or correct `server`, if the key is of another one"),
            )
        )
    if status == 403:
        raise _Stop(
            problem(
                "key",
                f"the key may not send reports: {detail}",
                "take a token from Servers, New server and run `sentinella enrol`",
            )
        )
    found.append(_own(config))


def _own(config: Config) -> Finding:
    """Whether the key is this agent's: a copied or emptied state directory breaks that."""
    try:
        with open(os.path.join(config.state_dir, "agent-id"), encoding="ascii") as file:
            agent = file.read().strip()
    except OSError:
        agent = ""
    with contextlib.closing(_connected(config, [])) as sock:
        status, _, content = _request(config, sock, "GET", SERVER_PATH, None)
    owner = _json(content).get("agent") if status == 200 else None
    if owner and agent and owner != agent:
        return problem(
            "key",
            f"the key is of agent {owner}, and this one is {agent}",
            "enrol this host: a state directory or configuration was copied or taken away",
        )
    return fine("key", "accepted" if owner else "accepted (not bound to one server)")


def _request(
    config: Config, sock: socket.socket, method: str, path: str, body: bytes | None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    parts = urlsplit(config.server)
    netloc = parts.netloc.rpartition("@")[2]
    target = parts.path.rstrip("/") + path
    headers = {
        "Host": netloc,
        "Authorization": f"Bearer {config.key or 'none'}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": f"sentinella-doctor/{VERSION}",
    }
    if config.proxy and parts.scheme == "http":
        target = f"http://{netloc}{target}"
        proxy = urlsplit(config.proxy)
        if proxy.username:
            said = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            token = base64.b64encode(said.encode()).decode()
            headers["Proxy-Authorization"] = f"Basic {token}"
    connection = http.client.HTTPConnection(netloc, timeout=config.timeout)
    connection.sock = sock
    ends_within(connection, config.timeout)
    try:
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read(262_144)
    except socket.timeout:
        raise _Stop(
            problem(
                "server",
                f"{config.server} takes the connection and does not answer in {config.timeout:g} s",
                "look at the server, or at what stands before it; the agent keeps everything",
            )
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Stop(
            problem(
                "server",
                f"{config.server} gives no HTTP answer: {error!r}",
                "correct the port in `server`; is it https:// there?",
            )
        ) from None


def _clock(date: str | None, sent: float, got: float) -> Iterable[Finding]:
    """This host's clock against the server's, whose header counts whole seconds."""
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp() + 0.5 if date else None
    except (TypeError, ValueError):
        theirs = None
    if theirs is None:
        return []
    ahead = (sent + got) / 2 - theirs
    off = abs(ahead) - (got - sent) / 2 - 0.5
    if off <= SKEW_WARNING:
        return [fine("clock", "agrees with the server's")]
    word = "ahead of" if ahead > 0 else "behind"
    if off > CORRECT_UP_TO:
        return [
            problem(
                "clock",
                f"this host is {abs(ahead) / 86_400:.1f} days {word} the server: one of the two is"
                " wrong, and the agent corrects no more than a day",
                "look at both clocks with timedatectl, and set the one that is wrong:"
                " timedatectl set-ntp true (or chronyc makestep)",
            )
        ]
    return [
        Finding(
            "clock",
            PROBLEM if off > SKEW_PROBLEM else WARNING,
            f"this host is {abs(ahead):.0f} s {word} the server",
            "timedatectl set-ntp true (or chronyc makestep); if this one is right, the server's",
        )
    ]


def _json(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
