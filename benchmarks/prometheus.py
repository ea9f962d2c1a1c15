"""Debian's Prometheus and Alertmanager as contenders: started on loopback, fed by remote-write."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks import waiting
from sentinel_site.embedded.process import free_port

START = 60.0  # seconds

#: Labels, and samples of milliseconds and values.
Series = tuple[Mapping[str, str], Iterable[tuple[int, float]]]


@contextlib.contextmanager
def running(folder: Path, config: str, rules: str) -> Iterator[tuple[psutil.Process, str]]:
    """A Prometheus with these rules, and its address; `config` may not name rule files itself."""
    port = free_port()
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(f"rule_files: ['{folder}/rules.yml']\n{config}")
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=error",
    ]
    with _started(command) as process:
        url = f"http://127.0.0.1:{port}"
        wait(f"{url}/-/ready")
        yield process, url


@contextlib.contextmanager
def alertmanager(folder: Path, config: str) -> Iterator[int]:
    """An Alertmanager without peers; its port."""
    port = free_port()
    (folder / "alertmanager.yml").write_text(config)
    command = [
        "prometheus-alertmanager",
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    with _started(command):
        wait(f"http://127.0.0.1:{port}/-/ready")
        yield port


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[psutil.Process]:
    with subprocess.Popen(command) as process:  # noqa: S603
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def wait(url: str) -> None:
    """Until it answers. Raises OSError after START."""

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
        return False

    if not waiting.until(answers, START):
        raise OSError(f"{url} does not answer")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        return str(answer.read().decode())


def counter(url: str, name: str) -> float:
    """One counter of its own /metrics; 0 before it exists."""
    for line in get(f"{url}/metrics").splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    return 0.0


def push(url: str, series: Iterable[Series]) -> None:
    """Store these samples; returns when they are acknowledged."""
    request = urllib.request.Request(  # noqa: S310
        f"{url}/api/v1/write",
        _snappy(_write_request(series)),
        {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310
        pass


def _write_request(series: Iterable[Series]) -> bytes:
    """A remote-write 1.0 request."""
    found = []
    for labels, samples in series:
        body = b"".join(
            _field(1, _field(1, name.encode()) + _field(2, text.encode()))
            for name, text in sorted(labels.items())
        )
        for ts, value in samples:
            body += _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(ts))
        found.append(_field(1, body))
    return b"".join(found)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _snappy(data: bytes) -> bytes:
    """The block format with literals only: valid, though nothing becomes smaller."""
    parts = [_varint(len(data))]
    for start in range(0, len(data), 65_536):
        chunk = data[start : start + 65_536]
        parts += [b"\xf4", struct.pack("<H", len(chunk) - 1), chunk]
    return b"".join(parts)
