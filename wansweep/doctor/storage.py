"""Room and speed of the disk that holds weights, and of where run folders go."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wansweep.cache import cache_dir
from wansweep.case import Model
from wansweep.doctor.finding import Finding, State

# All components as they are loaded: transformers and T5 in bf16, the VAE in fp32 (parameters of the architectures; held by a test).
WEIGHTS_BYTES = {Model.TI2V_5B: 24_180_150_768, Model.T2V_A14B: 69_023_357_132, Model.I2V_A14B: 69_024_995_532}
TEST_BYTES = 256 * 1024**2
PIECE_BYTES = 8 * 1024**2
# No test of a slow disk takes longer than this, each way.
TEST_S = 3.0
# Below it an A14B checkpoint takes six minutes to read, and every cold load is a wait.
SLOW_BYTES_PER_S = 200e6
REPORTS_BYTES = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Of a disk, from and to the disk itself, the page cache left aside; null where the file system would not do it."""

    write_bytes_per_s: float
    read_bytes_per_s: float | None


def storage(cache: Path | None = None, reports: Path = Path("reports")) -> Iterator[Finding]:
    """The cache folder's room and speed, and the room for reports.

    Args:
        cache: Of wansweep; null for the user's own.
        reports: Where run folders go.
    """
    folder = _standing(cache or cache_dir())
    free_bytes = shutil.disk_usage(folder).free
    fits = [model for model, need in WEIGHTS_BYTES.items() if need < free_bytes]
    needs = ", ".join(f"{model} {need / 1e9:.0f} GB" for model, need in WEIGHTS_BYTES.items())
    room = f"{free_bytes / 1e9:.0f} GB free in {folder}; in bf16 {needs}"
    move = "put the caches on a larger disk: export HF_HOME=/disk/hf XDG_CACHE_HOME=/disk/cache; weights=random needs no disk"
    full = len(fits) == len(WEIGHTS_BYTES)
    yield Finding(area="storage", what="room for weights", state=State.OK if full else State.WARN, detail=room, fix="" if full else move)
    yield _speed(folder)
    place = _standing(reports)
    left = shutil.disk_usage(place).free
    enough = left > REPORTS_BYTES and os.access(place, os.W_OK)
    detail = f"{left / 1e9:.0f} GB free in {place}" if os.access(place, os.W_OK) else f"{place} cannot be written"
    fix = "" if enough else "choose another place: reports=/folder"
    yield Finding(area="storage", what="room for reports", state=State.OK if enough else State.PROBLEM, detail=detail, fix=fix)


def _speed(folder: Path) -> Finding:
    try:
        speed = measured(folder)
    except OSError as error:
        detail, fix = f"{folder} cannot be written: {error.strerror}", "make it writable, or choose another: export XDG_CACHE_HOME=/folder"
        return Finding(area="storage", what="speed", state=State.PROBLEM, detail=detail, fix=fix)
    seen = f"writes {speed.write_bytes_per_s / 1e6:.0f} MB/s"
    if speed.read_bytes_per_s is None:
        fix = "cold loads cannot be told from warm ones on this file system; keep weights on a local disk"
        return Finding(area="storage", what="speed", state=State.WARN, detail=f"{seen}; reads come from memory only", fix=fix)
    largest = WEIGHTS_BYTES[Model.T2V_A14B]
    seen += (
        f", reads {speed.read_bytes_per_s / 1e6:.0f} MB/s: {Model.T2V_A14B} takes {largest / speed.read_bytes_per_s:.0f} s from a cold start"
    )
    slow = speed.read_bytes_per_s < SLOW_BYTES_PER_S
    fix = "keep the weights on a local NVMe disk: weights=/nvme/folder" if slow else ""
    return Finding(area="storage", what="speed", state=State.WARN if slow else State.OK, detail=seen, fix=fix)


def measured(folder: Path, *, size_bytes: int = TEST_BYTES) -> Speed:
    """How fast a file in the folder is written through to the disk and read back from it."""
    piece = os.urandom(PIECE_BYTES)
    handle, name = tempfile.mkstemp(prefix=".wansweep-speed-", dir=folder)
    try:
        begin_s, written = time.perf_counter(), 0
        while written < size_bytes and time.perf_counter() - begin_s < TEST_S:
            written += os.write(handle, piece)
        os.fsync(handle)
        write_s = time.perf_counter() - begin_s
        return Speed(write_bytes_per_s=written / write_s, read_bytes_per_s=_read_back(name))
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _read_back(name: str) -> float | None:
    """Bytes a second past the page cache (O_DIRECT); null for a file system that has no such way."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return None
    try:
        with mmap.mmap(-1, PIECE_BYTES) as aligned:  # O_DIRECT wants page-aligned memory
            begin_s, read = time.perf_counter(), 0
            while time.perf_counter() - begin_s < TEST_S and (got := os.readv(handle, [aligned])):
                read += got
            return read / (time.perf_counter() - begin_s)
    except OSError:
        return None
    finally:
        os.close(handle)


def _standing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    whole = folder.resolve()
    return next(part for part in (whole, *whole.parents) if part.is_dir())
