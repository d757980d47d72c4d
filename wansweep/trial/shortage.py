"""What was missing when memory ran out: from torch's words, and from the device where those leave something open.

Formats: c10/cuda/CUDACachingAllocator.cpp of torch 2.13 and of 1.x, c10/core/impl/alloc_cpu.cpp.
"""

from __future__ import annotations

import re

from wansweep.record import Shortage
from wansweep.telemetry import torch_probe

# torch raises its own OutOfMemoryError for its allocator alone; what others ask of device or host fails in these words.
_HOST = ("DefaultCPUAllocator: can't allocate memory", "not enough memory: you tried to allocate", "Cannot allocate memory")
_DEVICE = ("CUDA out of memory", "CUDA error: out of memory", "CUDA driver error: out of memory", "_STATUS_ALLOC_FAILED")

_UNITS = {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_AMOUNT = rf"([\d.]+) ({'|'.join(_UNITS)})"
_REQUESTED = (rf"[Tt]ried to allocate {_AMOUNT}",)
_FREE = (rf"of which {_AMOUNT} is free", rf"{_AMOUNT} free;")
_ALLOCATED = (rf"{_AMOUNT} is allocated by PyTorch", rf"{_AMOUNT} already allocated")
_RESERVED = (rf"{_AMOUNT} reserved in total by PyTorch",)
_UNUSED = (rf"{_AMOUNT} is reserved by PyTorch but unallocated",)
_TOTAL = (rf"total capacity of {_AMOUNT}", rf"{_AMOUNT} total capacity")


def ran_out(error: BaseException) -> bool:
    """Whether the error says that device or host had no more memory."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in _HOST + _DEVICE)


def shortage(error: BaseException) -> Shortage:
    """What the error says was asked for and there; the device's own figures where it says nothing of them."""
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _HOST):
        return Shortage(of_host=True, requested_bytes=_amount(text, _REQUESTED))
    now = torch_probe.memory()
    allocated, unused = _amount(text, _ALLOCATED), _amount(text, _UNUSED)
    reserved = _amount(text, _RESERVED)
    if reserved is None and allocated is not None and unused is not None:
        reserved = allocated + unused
    free = _amount(text, _FREE)
    if free is None and now.device_total_bytes is not None and now.device_used_bytes is not None:
        free = now.device_total_bytes - now.device_used_bytes
    total = _amount(text, _TOTAL)
    return Shortage(
        of_host=False,
        requested_bytes=_amount(text, _REQUESTED),
        allocated_bytes=now.allocated_bytes if allocated is None else allocated,
        reserved_bytes=now.reserved_bytes if reserved is None else reserved,
        device_free_bytes=free,
        device_total_bytes=now.device_total_bytes if total is None else total,
    )


def _amount(text: str, forms: tuple[str, ...]) -> int | None:
    """The first amount in one of the forms, in bytes; torch prints two decimals of a unit."""
    found = next((match for form in forms if (match := re.search(form, text))), None)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
