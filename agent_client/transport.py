"""Sends what waits in the spool: one request a cycle, the backlog with what time is left.

The server's answer decides: 2xx is stored for good, so the spool lets go; a refusal of the whole
request is traced to the report that causes it; everything else (no network, 5xx, 429, a wrong or
revoked key) keeps the data and waits longer.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import email.utils
import http.client
import json
import logging
import os
import random
import socket
import ssl
import threading
import time
import zlib
from typing import Any, Callable, Iterator, Sequence
from urllib.parse import unquote, urlsplit

from agent_client.bounded import ends_within
from agent_client.coding import ZSTD, Codings
from agent_client.config import Config
from agent_client.skew import Skew
from agent_client.spool import Spool, SpoolCorrupt, Stored
from agent_client.wire import ENROL_PATH, REPORTS_PATH, VERSION

log = logging.getLogger("sentinella.transport")

#: One request holds at most so many reports and so much JSON, to stay small in memory.
BATCH_REPORTS = 100
BATCH_BYTES = 1024 * 1024
#: What the backlog may take of one cycle: a day of reports goes in some ten cycles, not in one.
CYCLE_REPORTS = 300

_BACK_OFF_FROM = 2.0
_BACK_OFF_TO = 60.0
_SLOW_RETRY = 300.0
_LONGEST_RETRY_AFTER = 3600.0
_LONGEST_ANSWER = 60.0
#: So often in a row the server's own word is enough to wait by.
_PATIENT_FAILURES = 5
_MAX_ANSWER = 256 * 1024
_LOGGED_REJECTS = 5
#: What is answered to a body whose packing is not understood, by us or by a proxy.
_NOT_UNPACKED = (400, 406, 415, 501)


class Refused(Exception):
    """The server answered with an error, or not as a Sentinella server does."""

    def __init__(
        self, status: int, detail: str, retry_after: float | None = None, ours: bool = False
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        #: The answer is a problem document, so it comes from the product and not from a proxy.
        self.ours = ours


@dataclasses.dataclass
class SendState:
    """How sending fares, as `sentinella status` shows it. Times are Unix seconds."""

    last_success_at: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    failures: int = 0
    requests: int = 0
    wire_bytes: int = 0
    retry_at: float | None = None

    @property
    def trouble(self) -> str | None:
        """What keeps it from sending; empty while it sends, None before the first answer."""
        if self.retry_at is not None:
            return self.last_error
        return None if self.last_success_at is None else ""


class Client:
    """One kept connection to the server. Used by one thread; `abort` may come from another."""

    def __init__(self, config: Config, timeout: float | None = None) -> None:
        """Of its own `timeout`, in seconds, also the whole of an answer takes no longer."""
        parts = urlsplit(config.server)
        self._https = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._https else 80)
        self._prefix = parts.path.rstrip("/")
        self._netloc = parts.netloc.rpartition("@")[2]
        self._timeout = timeout or config.timeout
        self._longest = timeout or _LONGEST_ANSWER
        self._ca_file = config.ca_file
        self._client_cert = config.client_cert
        self._client_key = config.client_key
        self._proxy = urlsplit(config.proxy) if config.proxy else None
        self._connection: http.client.HTTPConnection | None = None
        #: What bodies the server takes, as its last answer of 2xx said.
        self.accepted = ""

    def post(self, path: str, body: bytes, token: str, coding: str = "") -> tuple[int, bytes]:
        """Returns (status, body) of a 2xx. Raises Refused on another status, OSError on no answer.

        A kept connection that the server has closed meanwhile is opened anew, once; sending twice
        is safe, for a report is known by its sequence.
        """
        headers = {
            "Host": self._netloc,
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"sentinella-agent/{VERSION}",
        }
        if coding:
            headers["Content-Encoding"] = coding
        target = self._prefix + path
        if self._proxy is not None and not self._https:
            target = f"http://{self._netloc}{target}"
            headers.update(_proxy_authorization(self._proxy))
        try:
            kept = self._connection is not None
            try:
                return self._exchange(target, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not kept:
                    raise
                self.close()
                return self._exchange(target, body, headers)
        except http.client.HTTPException as error:
            self.close()
            raise ConnectionError(f"no HTTP answer: {type(error).__name__} {error}") from error
        except (OSError, ValueError) as error:
            self.close()
            raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error

    def _exchange(self, target: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
            ends_within(connection, self._longest)
        connection.request("POST", target, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read(_MAX_ANSWER + 1)
        if len(content) > _MAX_ANSWER or answer.will_close:
            self.close()
        if 200 <= answer.status < 300:
            self.accepted = answer.headers.get("Accept-Encoding", "")
            return answer.status, content
        raise _refusal(answer, content)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._host, self._port
        if self._proxy is not None:
            host, port = self._proxy.hostname or "", self._proxy.port or 3128
        if not self._https:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        context = self._tls_context()
        connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port, _proxy_authorization(self._proxy))
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:
            raise ConnectionError(f"ca_file {self._ca_file}: {_reason(error)}") from error
        if self._client_cert:
            try:
                # Without a password: a key that asks for one would ask on a terminal.
                context.load_cert_chain(self._client_cert, self._client_key or None, "")
            except OSError as error:
                files = " and ".join(name for name in (self._client_cert, self._client_key) if name)
                raise ConnectionError(
                    f"client_cert {files}: {_reason(error)}; certificate and key in PEM form, "
                    "which belong together, the key without a password"
                ) from error
        return context

    def abort(self) -> None:
        """Break off the request under way, from another thread."""
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the kept connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)


def _proxy_authorization(proxy: Any) -> dict[str, str]:
    if not proxy.username:
        return {}
    said = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(said.encode()).decode()}


def _refusal(answer: http.client.HTTPResponse, content: bytes) -> Refused:
    ours = answer.headers.get_content_type() == "application/problem+json"
    detail = answer.reason or ""
    if ours or answer.headers.get_content_type() == "application/json":
        # Says JSON and is none that can be read: the reason must do.
        with contextlib.suppress(ValueError, RecursionError):
            problem = json.loads(content)
            if isinstance(problem, dict):
                said = problem.get("detail") or problem.get("title") or detail
                detail = _wrong_fields(problem.get("errors")) or str(said)
    if 300 <= answer.status < 400:
        detail = f"redirected to {answer.headers.get('Location')}: set `server` to that address"
    return Refused(
        answer.status, detail[:500], _retry_after(answer.headers.get("Retry-After")), ours
    )


def _wrong_fields(errors: object) -> str:
    """What a problem document says of each field, on one line; "" where it names none."""
    if not isinstance(errors, dict):
        return ""
    return " ".join(
        f"{field}: {one['message']}"
        for field, found in errors.items()
        if isinstance(found, list)
        for one in found
        if isinstance(one, dict) and isinstance(one.get("message"), str)
    )


def _retry_after(said: str | None) -> float | None:
    """Seconds to wait, of a Retry-After header in either of its forms (RFC 9110, 10.2.3)."""
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return min(_LONGEST_RETRY_AFTER, max(0.0, seconds))


def enrol(config: Config, token: str, agent: str) -> str:
    """Turn a one-time enrol token into this server's key. Raises Refused or OSError."""
    client = Client(config)
    body = json.dumps({"agent": agent, "host": config.hostname, "version": VERSION}).encode()
    try:
        status, content = client.post(ENROL_PATH, body, token)
    finally:
        client.close()
    with contextlib.suppress(ValueError, AttributeError, RecursionError):  # judged below
        key = json.loads(content).get("key")
        if isinstance(key, str) and key:
            return key
    raise Refused(status, "the answer holds no key: is this a Sentinella server?")


class Sender:
    """Empties the spool towards the server; `work` is called once a cycle, in one thread."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
        skew: Skew | None = None,
    ) -> None:
        self._config = config
        self._spool = spool
        self._client = Client(config)
        self._codings = Codings()
        self._clock = clock
        self._draw = draw
        self._skew = skew
        self._not_before = 0.0
        self._failed_in_a_row = 0
        self._next_config: Config | None = None
        self.state = SendState()
        self.stop = threading.Event()
        #: Told what the server asks this agent for, with each answer that has it.
        self.on_settings: Callable[[object], None] = lambda said: None

    def use(self, config: Config) -> None:
        """Send with this configuration from the next `work` on. From any thread."""
        self._next_config = config

    def _take_up(self) -> None:
        """Another server, key or way may work at once where the old one did not."""
        config, self._next_config = self._next_config, None
        if config is not None and config != self._config:
            self._config = config
            self._client.close()
            self._client = Client(config)
            self._codings = Codings()
            self._not_before = 0.0

    def work(self, current: int | None, seconds: float) -> None:
        """Send the report `current`, then the oldest while `seconds` last.

        Nothing is sent before the time that an earlier failure set. Never raises on what the
        network or the server does; raises SpoolCorrupt and SpoolUnusable.
        """
        self._take_up()
        if not self._config.server or not self._config.key or self._clock() < self._not_before:
            return
        deadline = self._clock() + seconds
        sent = 0
        batch = self._spool.newest(current) if current is not None else []
        while not self.stop.is_set():
            if not batch:
                if sent and (sent >= CYCLE_REPORTS or self._clock() >= deadline):
                    return
                batch = self._spool.oldest(BATCH_REPORTS, BATCH_BYTES)
            if not batch or not self._deliver(batch):
                return
            sent += len(batch)
            batch = []

    def _deliver(self, batch: Sequence[Stored]) -> bool:
        """Send one batch, in halves where the server refuses it whole; False to wait."""
        try:
            return self._deliver_in_parts(batch)
        finally:
            self._spool.release()

    def _deliver_in_parts(self, batch: Sequence[Stored]) -> bool:
        halves: list[Sequence[Stored]] = [batch]
        while halves:
            if self.stop.is_set():
                return False
            part = halves.pop(0)
            try:
                body = self._packed(part)
            except zlib.error as error:
                raise SpoolCorrupt(f"a stored report: {error}") from error
            self.state.requests += 1
            self.state.wire_bytes += len(body)
            try:
                answer = self._post(self._client, body)
            except Refused as refusal:
                if self._codings.current == ZSTD and refusal.status in _NOT_UNPACKED:
                    self._codings.refused()
                    halves.insert(0, part)
                    continue
                if not self._is_their_fault(refusal):
                    self._wait(refusal)
                    return False
                if len(part) > 1:
                    middle = len(part) // 2
                    halves[:0] = [part[:middle], part[middle:]]
                    continue
                log.error("report %d refused and dropped: %s", part[0].sequence, refusal)
                self._note_error(f"report {part[0].sequence} dropped: {refusal}")
                self._spool.refuse(part[0].sequence, part[0].epoch)
                continue
            except OSError as error:
                self._wait(error)
                return False
            rejected = answer["rejected"]
            self._spool.acknowledge(
                [stored.sequence for stored in part], len(rejected), part[0].epoch
            )
            self._succeeded(rejected)
            if answer.get("settings") is not None:
                self.on_settings(answer["settings"])
        return True

    def _post(self, client: Client, body: bytes) -> dict[str, Any]:
        """Send one request; returns the answer. Raises Refused or OSError."""
        clock = self._skew.clock if self._skew is not None else time.time
        sent_at = clock()
        coding = self._codings.current
        status, content = client.post(REPORTS_PATH, body, self._config.key, coding)
        received_at = clock()
        answer = _accepted(status, content)
        self._codings.heard(client.accepted)
        server_time = answer.get("server_time")
        if self._skew is not None and server_time is not None and _is_time(server_time):
            self._skew.note(sent_at, received_at, float(server_time))
        return answer

    def farewell(self, sequence: int, seconds: float) -> bool:
        """Try once to send the last report, within `seconds`; where that fails it waits on."""
        batch = self._spool.newest(sequence)
        client = Client(self._config, seconds)
        try:
            rejected = self._post(client, self._packed(batch))["rejected"]
        except (OSError, Refused, zlib.error) as error:
            log.info("the goodbye waits for the next start: %s", error)
            return False
        finally:
            client.close()
            self._spool.release()
        self._spool.acknowledge([sequence], len(rejected), batch[0].epoch)
        return True

    def _packed(self, batch: Sequence[Stored]) -> bytes:
        """The request body, unpacked and packed again report by report."""

        def parts() -> Iterator[bytes]:
            yield b'{"reports":['
            for number, stored in enumerate(batch):
                if number:
                    yield b","
                yield stored.json()
            yield b"]}"

        return self._codings.pack(parts())

    @staticmethod
    def _is_their_fault(refusal: Refused) -> bool:
        """Whether the reports themselves are what the server refuses."""
        if refusal.status == 413:
            return True
        kept = (401, 403, 404, 405, 407, 408, 421, 425, 426, 429)
        return 400 <= refusal.status < 500 and refusal.status not in kept and refusal.ours

    def _succeeded(self, rejected: Sequence[Any]) -> None:
        if self.state.last_error and self._failed_in_a_row:
            log.info("sending works again")
            self.state.last_error = ""
        self._failed_in_a_row = 0
        self._not_before = 0.0
        self.state.retry_at = None
        self.state.last_success_at = time.time()
        for reject in rejected[:_LOGGED_REJECTS]:
            log.warning("the server rejected an item: %s", json.dumps(reject)[:300])
        if len(rejected) > _LOGGED_REJECTS:
            log.warning("and %d further items", len(rejected) - _LOGGED_REJECTS)
        if rejected:
            self._note_error(f"{len(rejected)} items rejected, first: {rejected[0]}"[:300])

    def _wait(self, error: Exception) -> None:
        """Keep everything and wait: as long as the server asks, else longer each time."""
        self._failed_in_a_row += 1
        self.state.failures += 1
        retry_after = error.retry_after if isinstance(error, Refused) else None
        status = error.status if isinstance(error, Refused) else 0
        most = min(_BACK_OFF_TO, _BACK_OFF_FROM * 2.0 ** min(self._failed_in_a_row, 10))
        if retry_after is not None:
            # One that always says “at once” is not asked once a second for ever.
            spread = min(10.0, 1.0 + retry_after / 10)
            if self._failed_in_a_row > _PATIENT_FAILURES:
                spread = max(spread, most - retry_after)
            delay = retry_after + self._draw(0.0, spread)
        elif status in (401, 403, 404, 405, 407, 426) or 300 <= status < 400:
            delay = self._draw(_SLOW_RETRY / 2, _SLOW_RETRY)
        else:
            delay = self._draw(0.0, most)
        self._not_before = self._clock() + delay
        self.state.retry_at = time.time() + delay
        text = _plainly(error, self._config.server)
        if self._failed_in_a_row == 1 or text != self.state.last_error:
            log.warning("%s; everything is kept, next try in %.0f s", text, delay)
        self._note_error(text)

    def _note_error(self, text: str) -> None:
        self.state.last_error = text
        self.state.last_error_at = time.time()

    @property
    def delivers(self) -> bool:
        """The last request was answered as it should be."""
        return not self._failed_in_a_row and self.state.last_success_at is not None

    def seconds_to_retry(self) -> float | None:
        """How long until a failed request is due again; None where none failed."""
        if not self._failed_in_a_row:
            return None
        return max(0.1, self._not_before - self._clock())

    def abort(self) -> None:
        """Break off the request under way."""
        self._client.abort()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


#: What else than `ca_file` it may be, by OpenSSL's numbers (x509_vfy.h).
_CERTIFICATE_MENDS = {
    9: "look at this host's clock",
    10: "renew it there, or set this host's clock",
    62: "write in `server` the name that it is for",
    64: "write in `server` the name that it is for",
}


def _plainly(error: Exception, server: str) -> str:
    if isinstance(error, Refused):
        if error.status == 401:
            return "the server does not know this key (401): enrol again with `sentinella enrol`"
        if error.status == 403:
            return (
                f"the server refuses this key (403): {error.detail.rstrip('.')}; enrol again with"
                " `sentinella enrol`, or see what `sentinella doctor` says of it"
            )
        if error.status in (404, 405):
            return f"{server} has no door for reports ({error.status}): is the address right?"
        return f"the server answered {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        mend = _CERTIFICATE_MENDS.get(error.verify_code, "set `ca_file`")
        return f"the certificate of {server} is not trusted ({error.verify_message}): {mend}"
    if isinstance(error, ssl.SSLError):
        if "CERTIFICATE_REQUIRED" in (error.reason or ""):
            return f"{server} asks for a certificate: set `client_cert` and `client_key`"
        return f"{server} cannot be reached over TLS: {_reason(error)}"
    if isinstance(error, socket.gaierror):
        return f"the name in {server} is not known: {error.strerror}"
    if isinstance(error, socket.timeout):
        return f"{server} did not answer in time"
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return f"{server} cannot be reached: {reason}"


def _is_time(said: object) -> bool:
    """Whether it is a moment in Unix seconds, later than 2001: what a set clock can show."""
    return isinstance(said, (int, float)) and 1e9 <= said < 1e11


def _accepted(status: int, content: bytes) -> dict[str, Any]:
    """The answer of a 2xx. Raises Refused where it is not the product that answered.

    A captive portal's friendly 200 must not empty the spool.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("accepted"), int):
        raise Refused(502, f"a {status} that is no Sentinella server's")
    if not isinstance(answer.get("rejected"), list):
        answer["rejected"] = []
    return answer
