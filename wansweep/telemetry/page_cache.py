"""How much of a set of files is in the page cache: whether a load will be warm, half warm or cold, from data and not by guess."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from wansweep.telemetry.samples import Missing, Reading
from wansweep.units import GIB

_CHUNK_BYTES = GIB
_MAP_FAILED = ctypes.c_void_p(-1).value


def cached_fraction(files: Iterable[Path]) -> Reading:
    """Share of the files' bytes, 0 to 1, that the page cache holds; by mincore(2), which reads nothing from disk.

    Since Linux 5.2 mincore tells a process that neither owns nor may write a file that all of it is cached; such a file makes the
    reading null with ``no_permission``. No bytes at all is ``not_applicable``.
    """
    pages = cached = 0
    for path in files:
        try:
            with path.open("rb") as file:
                owner = os.fstat(file.fileno()).st_uid
                if owner != os.geteuid() and os.geteuid() != 0 and not os.access(path, os.W_OK):
                    return Reading.missing(Missing.NO_PERMISSION)
                in_cache, of = _pages(file.fileno(), os.fstat(file.fileno()).st_size)
        except PermissionError:
            return Reading.missing(Missing.NO_PERMISSION)
        except OSError:
            return Reading.missing(Missing.ERROR)
        cached += in_cache
        pages += of
    return Reading(value=cached / pages) if pages else Reading.missing(Missing.NOT_APPLICABLE)


def _pages(fd: int, size_bytes: int) -> tuple[int, int]:
    """Pages in the cache, and pages of the file."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    cached = pages = 0
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        length = min(_CHUNK_BYTES, size_bytes - offset)
        # Through libc, because the mmap module gives no address of a read-only mapping.
        address = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
        if address == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
        try:
            flags = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
            if libc.mincore(address, length, flags) != 0:
                raise OSError(ctypes.get_errno(), "mincore")
        finally:
            libc.munmap(address, length)
        pages += len(flags)
        # Only the lowest bit has a meaning.
        cached += int.from_bytes(flags.raw, "little").bit_count() if not flags.raw.strip(b"\0\1") else sum(flag & 1 for flag in flags.raw)
    return cached, pages
