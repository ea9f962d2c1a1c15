"""No network for a process and all that it starts, on any kernel: seccomp(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
#: By machine: how the kernel calls it (linux/audit.h), and the number of socket(2).
_MACHINES = {"x86_64": (0xC000_003E, 41), "aarch64": (0xC000_00B7, 198)}
#: Calls of the x32 interface carry this bit, and other numbers for the same things.
_X32 = 0x4000_0000
_IO_URING_SETUP = 425
#: Sockets of this host; by netlink a program reads interfaces and routes.
_LOCAL = (socket.AF_UNIX, socket.AF_NETLINK)

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0000 | errno.EACCES
#: Where in `struct seccomp_data` things lie; arguments are of 64 bits, low half first.
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    ]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction))]


def no_internet(libc: ctypes.CDLL) -> str:
    """Let no socket be made but local ones. Needs no_new_privs; for good. Raises OSError."""
    known = _MACHINES.get(platform.machine())
    if known is None:
        raise ValueError(f"not known how on {platform.machine()}")
    machine, make_socket = known
    # Jumps count the instructions that are left out; the last two are "refuse" and "allow".
    instructions = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 0, 7, machine),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 5, 0, _X32),
        (_EQUAL, 4, 0, _IO_URING_SETUP),  # which makes sockets without that call
        (_EQUAL, 0, 4, make_socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 2, 0, _LOCAL[0]),
        (_EQUAL, 1, 0, _LOCAL[1]),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    filled = (_Instruction * len(instructions))(*(_Instruction(*one) for one in instructions))
    program = _Program(len(filled), filled)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "none but this host's own sockets (seccomp)"
