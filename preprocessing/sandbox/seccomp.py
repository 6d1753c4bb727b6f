"""System calls that the decoder process may make, as a seccomp filter (Linux, x86-64 and aarch64).

A second line of defence: resource limits already take away files, sockets and processes. The filter also keeps a
decoder with a fault from signalling, tracing or reading the gateway, which runs as the same user. Where the kernel or
the machine does not support it, the process runs with the resource limits alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_DUMPABLE = 1, 38, 22, 4
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9

# linux/audit.h: AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Memory, standard input and output, clocks, signals of its own, locks and the end: nothing else.
# asm/unistd_64.h and asm-generic/unistd.h.
_ALLOWED = {
    "x86_64": (
        *(0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 24, 25, 28, 35, 39, 60, 72, 96, 98, 158, 186, 202, 204),
        *(228, 230, 231, 262, 318, 334),
    ),
    "aarch64": (
        *(25, 57, 62, 63, 64, 65, 66, 79, 80, 93, 94, 98, 101, 113, 115, 123, 124, 134, 135, 139, 165, 169, 172, 178),
        *(214, 215, 216, 222, 226, 233, 278, 293),
    ),
}
# clone and set_robust_list, which a new thread calls.
_THREAD_CALLS = {"x86_64": (56, 273), "aarch64": (220, 99)}
_CLONE3, _CLONE_THREAD = 435, 0x10000
_RETURN_ALLOW, _RETURN_EPERM, _RETURN_ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
# classic BPF (linux/filter.h): load a word, jump if equal, return.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data
_X32_BIT = 0x40000000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel end this process with the thread that started it, and forbid others to read its memory."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before the call
            os._exit(1)


def deny_system_calls(*, allows_threads: bool) -> bool:
    """Let every system call but the allowed ones fail with EPERM; return whether the kernel took the filter."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _ALLOWED:
        return False
    program = make_filter(machine, allows_threads=allows_threads)
    libc = ctypes.CDLL(None)
    described = _Program(len(program) // 8, program)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0) == 0)


def make_filter(machine: str, *, allows_threads: bool) -> bytes:
    """Return the BPF program for a machine of `_ALLOWED`: EPERM for other architectures and for calls not listed.

    With `allows_threads`, clone is allowed for threads of this process; clone3, whose arguments a filter cannot see,
    does not exist then, and the C library uses clone.
    """
    clone, robust_list = _THREAD_CALLS[machine]
    allowed = (*_ALLOWED[machine], robust_list) if allows_threads else _ALLOWED[machine]
    threads = (
        [
            (_JUMP_EQUAL, 5, 0, _CLONE3),  # to ENOSYS
            (_JUMP_EQUAL, 0, 2, clone),  # else to EPERM
            (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
            (_JUMP_IF_SET, 1, 0, _CLONE_THREAD),  # to ALLOW
        ]
        if allows_threads
        else []
    )
    refuse = len(allowed) + len(threads)  # instructions between the fourth and EPERM
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 0, refuse + 2, _ARCHITECTURES[machine]),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_AT_LEAST, refuse, 0, _X32_BIT),
        *((_JUMP_EQUAL, refuse - index, 0, number) for index, number in enumerate(allowed)),
        *threads,
        (_RETURN, 0, 0, _RETURN_EPERM),
        (_RETURN, 0, 0, _RETURN_ALLOW),
        (_RETURN, 0, 0, _RETURN_ENOSYS),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
