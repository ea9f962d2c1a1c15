"""From the bytes of a request to plain JSON values, with bounded memory and time."""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec
import zstandard

from agent_client import wire
from sentinel_site.kit.problems import Problem, TooLarge

#: What a body may be packed with, the best first; every answer of a door says so.
ACCEPTED = "zstd, gzip, identity"

#: RFC 9659 has no frame for the web ask for a larger window; that much memory is set aside.
_MAX_WINDOW = 8 * 1024**2
#: zstd has no way to stop within what it was given, so it is given little: a block has at least
#: 4 bytes and unpacks to 128 KiB at most, so no more than 8 MiB come at once.
_ZSTD_STEP = 256


class UnknownEncoding(Problem):
    status, code, title = 415, "unknown-encoding", "This content encoding is not understood"
    headers = {"Accept-Encoding": ACCEPTED}


class NotCompressed(Problem):
    status, code, title = 400, "not-gzip", "The body is not what Content-Encoding says"
    headers = {"Accept-Encoding": ACCEPTED}


class NotZstd(Problem):
    status, code, title = 400, "not-zstd", "The body is not what Content-Encoding says"
    headers = {"Accept-Encoding": ACCEPTED}


class NotJSON(Problem):
    status, code, title = 400, "not-json", "The body is not JSON"


class TooDeep(Problem):
    status, code, title = 400, "too-deep", "The body is nested too deeply"


def check_length(length: int, most: int = wire.MAX_BODY) -> None:
    """Refuse by Content-Length, before anything is read. Raises TooLarge."""
    if length > most:
        raise TooLarge(_limit(f"It has {length} bytes", most), limit=most)


def decompress(body: bytes, encoding: str, most: int = wire.MAX_BODY) -> bytes:
    """The plain body; what unpacks to more than `most` bytes is never unpacked whole.

    Raises TooLarge, UnknownEncoding, NotCompressed or NotZstd.
    """
    check_length(len(body), most)
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding in ("gzip", "x-gzip"):
        return _gunzipped(body, most)
    if encoding == "zstd":
        return _unpacked_zstd(body, most)
    raise UnknownEncoding(f"It says {encoding[:40]}; send zstd, gzip, or nothing.")


def _gunzipped(body: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise NotCompressed(f"gzip says: {error}. Taken are {ACCEPTED}.") from error
    if len(plain) > most:
        raise TooLarge(_limit("Unpacked it is larger", most), limit=most)
    if not unpacker.eof:
        raise NotCompressed("The gzip stream ends too early.")
    if unpacker.unused_data:
        raise NotCompressed("Something follows the gzip stream; send one.")
    return plain


def _unpacked_zstd(body: bytes, most: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    plain, size, given = [], 0, 0
    try:
        while given < len(body) and not unpacker.eof:
            plain.append(unpacker.decompress(body[given : given + _ZSTD_STEP]))
            given += _ZSTD_STEP
            size += len(plain[-1])
            if size > most:
                raise TooLarge(_limit("Unpacked it is larger", most), limit=most)
    except zstandard.ZstdError as error:
        raise NotZstd(
            f"{error}; a window of {_MAX_WINDOW // 1024**2} MiB is the largest."
            f" Taken are {ACCEPTED}."
        ) from error
    if not unpacker.eof:
        raise NotZstd("The zstd frame ends too early.")
    if unpacker.unused_data or given < len(body):
        raise NotZstd("Something follows the zstd frame; send one.")
    return b"".join(plain)


def parse(body: bytes) -> Any:
    """JSON values. The bare words NaN and Infinity pass, as agents' encoders let them through.

    Raises NotJSON or TooDeep.
    """
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _parse_leniently(body)
    except RecursionError:
        raise TooDeep("Nothing here needs more than five levels.") from None


def _parse_leniently(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise NotJSON(f"It is not UTF-8 at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise NotJSON(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise TooDeep("Nothing here needs more than five levels.") from None


def _integer(digits: str) -> int | float:
    """Python refuses to read integers of thousands of digits; as a float they are infinite."""
    return int(digits) if len(digits) < 400 else float(digits)


def _limit(what: str, most: int) -> str:
    return f"{what}; at most {most // 1024**2} MiB are taken. Send less at once."
