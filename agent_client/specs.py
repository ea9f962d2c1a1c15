"""What this host is: system, kernel, processor, memory, storage."""

from __future__ import annotations

import os
import platform
import shlex
from typing import Any

import psutil

from agent_client.collectors.disk_io import volume_name
from agent_client.hardware import hardware
from agent_client.wire import VERSION

_NO_STORAGE = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")
_SECTOR = 512  # /sys/block/*/size counts these, whatever the disk's own sector is


def specs() -> dict[str, Any]:
    """The host's facts as the server keeps them; amounts in bytes, `boot_at` in Unix seconds."""
    model, cores = _processor()
    return {
        "os": _os(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": {
            "model": model,
            "threads": os.cpu_count() or 1,
            "cores": cores or os.cpu_count() or 1,
        },
        "memory": {"total": psutil.virtual_memory().total},
        "swap": {"total": psutil.swap_memory().total},
        "storage": _storage(),
        "hardware": hardware(),
        "boot_at": round(psutil.boot_time()),
        "agent_version": VERSION,
        "python": platform.python_version(),
    }


def _os() -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [line.partition("=") for line in file if "=" in line]
        except OSError:
            continue
        said = {key.strip(): " ".join(shlex.split(value)) for key, _, value in lines}
        name = said.get("NAME", platform.system())
        return {"name": name, "version": said.get("VERSION_ID", said.get("VERSION", ""))}
    return {"name": platform.system(), "version": ""}


def _processor() -> tuple[str, int]:
    """Model and number of physical cores (0 where the kernel does not say)."""
    model = ""
    cores: set[tuple[str, str]] = set()
    socket = ""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            key, value = key.strip(), value.strip()
            if key in ("model name", "Model", "cpu model") and not model:
                model = value
            elif key == "physical id":
                socket = value
            elif key == "core id":
                cores.add((socket, value))
    return model or platform.processor() or platform.machine(), len(cores)


def _storage() -> list[dict[str, Any]]:
    found = []
    try:
        devices = sorted(os.listdir("/sys/block"))
    except OSError:
        return []  # no sysfs, as in some containers
    for device in devices:
        if device.startswith(_NO_STORAGE):
            continue
        base = os.path.join("/sys/block", device)
        size = int(_read(os.path.join(base, "size")) or 0) * _SECTOR
        if size:
            model = _read(os.path.join(base, "device/model"))
            found.append({"device": volume_name(device), "size": size, "model": model})
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
