"""What the host is made of, as the firmware says: who made it, which model, is it a machine."""

from __future__ import annotations

import os
from typing import Any

_DMI = "/sys/class/dmi/id"
_NAMES = {
    "vendor": "sys_vendor",
    "product": "product_name",
    "version": "product_version",
    "board": "board_name",
    "bios": "bios_version",
    "bios_date": "bios_date",
    "chassis": "chassis_type",
}
#: What firmware says that nobody has filled in.
_NOTHING = frozenset({"", "none", "default string", "to be filled by o.e.m.", "not specified"})


def hardware(folder: str = _DMI, cpuinfo: str = "/proc/cpuinfo") -> dict[str, Any]:
    """Vendor, product, firmware; `virtual` if a hypervisor is below. Serial numbers are root's
    to read and are not sent.
    """
    found: dict[str, Any] = {}
    for name, file in _NAMES.items():
        text = _read(os.path.join(folder, file))
        if text.lower() not in _NOTHING:
            found[name] = text[:120]
    flags = next(
        (line for line in _read(cpuinfo).splitlines() if line.startswith("flags")), ""
    ).split()
    found["virtual"] = "hypervisor" in flags
    found["virtualization"] = "vmx" if "vmx" in flags else "svm" if "svm" in flags else ""
    return {name: value for name, value in found.items() if value != ""}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
