"""How a request's body is packed: gzip, or zstd where this Python has it and the server takes it.

zstd comes with Python 3.14, or with the package `zstandard`; neither is needed.
"""

from __future__ import annotations

import importlib
import logging
import zlib
from typing import Any, Callable, Iterable, Protocol

log = logging.getLogger("sentinella.coding")

GZIP, ZSTD = "gzip", "zstd"

#: The tables are smaller than the level has them: that costs no bytes here, and saves 10 MiB. The
#: window holds some reports, and what they have in common is sent once.
_LEVEL = 9
_TABLES = {"window_log": 17, "chain_log": 15, "hash_log": 15}


class Packer(Protocol):
    """Packs a stream piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """Packed bytes that are ready."""

    def flush(self) -> bytes:
        """The rest of them."""


def _gzip() -> Packer:
    return zlib.compressobj(6, zlib.DEFLATED, 31)


def _zstd_of_python() -> Packer:
    zstd: Any = importlib.import_module("compression.zstd")
    parameter = zstd.CompressionParameter
    options = {getattr(parameter, name): value for name, value in _TABLES.items()}
    options.update({parameter.compression_level: _LEVEL, parameter.checksum_flag: 1})
    packer: Packer = zstd.ZstdCompressor(options=options)
    return packer


def _zstd_of_package() -> Packer:
    zstandard: Any = importlib.import_module("zstandard")
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, write_checksum=True, **_TABLES
    )
    packer: Packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer


class Codings:
    """Which packing the next body gets; it is the server's last answer that counts."""

    def __init__(self) -> None:
        self.current = GZIP
        #: None: it was not needed yet, so it was not looked for.
        self._zstd: Callable[[], Packer] | None = None
        self._refused = False
        self._looked = False

    def heard(self, accepted: str) -> None:
        """The server's Accept-Encoding, empty where it sent none."""
        names = {part.partition(";")[0].strip().lower() for part in accepted.split(",")}
        takes = ZSTD in names and not self._refused and self._has_zstd()
        self.current = ZSTD if takes else GZIP

    def refused(self) -> None:
        """The server, or what stands before it, did not take the current one: gzip from now on."""
        self.current, self._refused = GZIP, True

    def pack(self, parts: Iterable[bytes]) -> bytes:
        """All parts as one body; no more than one of them is in memory unpacked."""
        packer = self._zstd() if self.current == ZSTD and self._zstd is not None else _gzip()
        packed = [packer.compress(part) for part in parts]
        packed.append(packer.flush())
        return b"".join(packed)

    def _has_zstd(self) -> bool:
        if not self._looked:
            self._looked = True
            for candidate in (_zstd_of_python, _zstd_of_package):
                try:
                    candidate()
                except ImportError:
                    continue
                except Exception:  # one of another time: what we ask of it, it does not have
                    log.warning("zstd cannot be used, gzip is", exc_info=True)
                    continue
                self._zstd = candidate
                break
        return self._zstd is not None
