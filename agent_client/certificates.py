"""The end of certificates: of TLS services, of files, by the standard library alone."""

from __future__ import annotations

import base64
import calendar
import dataclasses
import re
import socket
import ssl
import time

_TIMEOUT = 3.0
_PEM = re.compile(
    rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----\s+(.+?)\s+-----END (?:TRUSTED )?CERTIFICATE-----",
    re.DOTALL,
)


@dataclasses.dataclass
class Seen:
    """A certificate that was seen. `expires_at` in Unix seconds; None where there was none."""

    expires_at: float | None = None
    trusted: bool | None = None
    reason: str = ""


def of_host(address: str, ca_file: str = "") -> Seen:
    """The certificate that a TLS service shows, good or not."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        strict = ssl.create_default_context(cafile=ca_file or None)
        return Seen(not_after(_shown(host, int(port), strict)), trusted=True)
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message
    except (OSError, ValueError) as error:
        return Seen(reason=getattr(error, "strerror", None) or str(error))
    # Untrusted, and its end is still worth knowing.
    lax = ssl.create_default_context()
    lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
    try:
        return Seen(not_after(_shown(host, int(port), lax)), trusted=False, reason=reason)
    except (OSError, ValueError) as error:
        return Seen(reason=getattr(error, "strerror", None) or str(error))


def _shown(host: str, port: int, context: ssl.SSLContext) -> bytes:
    plain = socket.create_connection((host, port), timeout=_TIMEOUT)
    with plain, context.wrap_socket(plain, server_hostname=host) as link:
        shown = link.getpeercert(binary_form=True)
    if shown is None:
        raise ValueError("it shows no certificate")
    return shown


def of_file(path: str) -> Seen:
    """The certificate of a PEM file that ends first."""
    try:
        with open(path, "rb") as file:
            content = file.read(1024 * 1024)
        ends = [not_after(base64.b64decode(found)) for found in _PEM.findall(content)]
    except OSError as error:
        return Seen(reason=error.strerror or str(error))
    except ValueError as error:
        return Seen(reason=str(error))
    if not ends:
        return Seen(reason="holds no certificate in PEM form")
    return Seen(min(ends))


def not_after(der: bytes) -> float:
    """The end of a certificate's validity (RFC 5280, section 4.1), in Unix seconds.

    Raises ValueError on what is no certificate.
    """
    try:
        _, outer, _ = _element(der, 0)
        _, body, _ = _element(outer, 0)
        at = 0
        tag, _, following = _element(body, 0)
        if tag == 0xA0:  # the version, which version 1 leaves out
            at = following
        for _skipped in ("serial number", "signature", "issuer"):
            _, _, at = _element(body, at)
        _, validity, _ = _element(body, at)
        _, _, at = _element(validity, 0)
        tag, text, _ = _element(validity, at)
        stamp = text.decode("ascii")
        if tag == 0x17:  # UTCTime has two digits for the year: 50 and later is of last century
            stamp = ("19" if stamp[:2] >= "50" else "20") + stamp
        return float(calendar.timegm(time.strptime(stamp, "%Y%m%d%H%M%SZ")))
    except (IndexError, UnicodeDecodeError, ValueError):
        raise ValueError("this is no certificate") from None


def _element(der: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, content and the place behind one element of DER."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size], "big")
        at += size
    if at + length > len(der):
        raise ValueError("it is cut off")
    return tag, der[at : at + length], at + length
