"""How processes ended that are not our children: what Ray's words say of it, and what the kernel does.

A rank is a child of Ray, which knows no exit code of a process that died without a word. Linux keeps it for whoever holds a pidfd of the
process (PIDFD_GET_INFO and PIDFD_INFO_EXIT of include/uapi/linux/pidfd.h, 6.15 and newer); on an older one nobody knows it.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import time

# struct pidfd_info: mask, cgroupid, eleven ids, exit_code.
_INFO = struct.Struct("=QQ11Ii")
_ZEROS = (0,) * 13
_MASK_EXIT = 1 << 3
# _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
# A process that died may still give back its memory, and its parent has yet to look at it.
GONE_S = 2.0
LOOK_S = 0.01

# What Ray 2.60 says where its memory monitor killed: what was in use, of what, and from where on it kills.
_LOW = "running low on memory"
_MONITOR = re.compile(r"was ([\d.]+GB) used / ([\d.]+GB) limit.*?exceeded threshold of \d+B \(([\d.]+%)", re.DOTALL)
# What it says of a process that could still tell it; such a one then ends with 0.
_TOLD = re.compile(r"exits with an (exit code \d+)")
_TERMINATED = "receives a SIGTERM"


def killed_for_memory(words: str) -> str:
    """That Ray's memory monitor killed a process, in short; empty where it did not."""
    if _LOW not in words:
        return ""
    found = _MONITOR.search(words)
    figures = f" ({found[1]} of {found[2]} in use; it kills from {found[3]} on)" if found else ""
    return f"Ray's memory monitor killed its process{figures}"


def told_to_ray(words: str) -> str:
    """How a process ended that had the time to tell Ray; empty for another."""
    if _TERMINATED in words:
        return "SIGTERM"
    found = _TOLD.search(words)
    return found[1] if found else ""


class Exits:
    """Processes whose ends can be asked for. Holds a descriptor for each until `close`."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}

    def hold(self, pid: int) -> None:
        """Ask for this process's end later; one that runs now."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # gone already, or a kernel older than 5.3
            return
        self._release(pid)
        self._held[pid] = handle

    def of(self, pid: int, *, within_s: float = GONE_S) -> str:
        """``SIGKILL`` or ``exit code 3``; empty where the kernel does not tell, or the process has not ended in time."""
        if (handle := self._held.get(pid)) is None:
            return ""
        until_s = time.monotonic() + within_s
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        if not ended.poll(within_s * 1000):
            return ""
        try:
            while not (status := _status(handle)) and time.monotonic() < until_s:
                time.sleep(LOOK_S)
        except OSError:
            return ""
        return status

    def close(self) -> None:
        """Ask no more."""
        for pid in list(self._held):
            self._release(pid)

    def _release(self, pid: int) -> None:
        if (handle := self._held.pop(pid, None)) is not None:
            os.close(handle)


def _status(handle: int) -> str:
    """How the process ended; empty while its parent has not looked at it.

    Raises:
        OSError: The kernel is too old to say.
    """
    mask, *_, status = _INFO.unpack(fcntl.ioctl(handle, _GET_INFO, _INFO.pack(_MASK_EXIT, *_ZEROS)))
    return said(os.waitstatus_to_exitcode(status)) if mask & _MASK_EXIT else ""


def said(code: int) -> str:
    """An exit code as `subprocess` counts it, in words: a negative one is a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
