"""What torch's allocators say at a stage boundary. torch is imported inside the functions; without CUDA every figure is null.

The caching allocator accounts when the host calls it, in program order, so a stage's peaks are exact without a sync (memory freed
late through record_stream excepted). The peaks have no stack: a reset inside a stage loses the outer one's peak, so only leaf
stages reset, and an outer stage is the maximum over its leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from wansweep.telemetry.samples import Missing


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchMemory:
    """Memory of one device and of the pinned host pool as torch sees them; peaks are since `reset_peaks`.

    Attributes:
        why: Null when the figures are there; ``unsupported`` without CUDA, ``not_applicable`` before this process first used it.
        peak_allocated_bytes: Most that tensors held at once.
        peak_reserved_bytes: Most that the allocator took from the device; shrinks only by empty_cache, so it tells of a run.
        allocated_bytes: What tensors hold now.
        reserved_bytes: What the allocator holds now.
        device_used_bytes: Total less free by cudaMemGetInfo: everybody's, contexts and libraries included.
        device_total_bytes: What CUDA gives out at most; less than the card has.
        pinned_bytes: Most that the pinned host pool held; its blocks are rounded up to powers of two. Null on a torch before 2.9.
        alloc_retries: Times the allocator had to give everything back to go on, since the process began.
    """

    why: Missing | None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    device_used_bytes: int | None = None
    device_total_bytes: int | None = None
    pinned_bytes: int | None = None
    alloc_retries: int | None = None


def memory(device: int = 0) -> TorchMemory:
    """The device's memory now, and its peaks since `reset_peaks`. Without a sync, and without making a CUDA context."""
    import torch

    why = _unavailable()
    if why is not None:
        return TorchMemory(why=why)
    stats = torch.cuda.memory_stats(device)
    free, total = torch.cuda.mem_get_info(device)
    host_stats: dict[str, int] = torch.cuda.host_memory_stats() if hasattr(torch.cuda, "host_memory_stats") else {}
    return TorchMemory(
        why=None,
        peak_allocated_bytes=stats.get("allocated_bytes.all.peak", 0),
        peak_reserved_bytes=stats.get("reserved_bytes.all.peak", 0),
        allocated_bytes=stats.get("allocated_bytes.all.current", 0),
        reserved_bytes=stats.get("reserved_bytes.all.current", 0),
        device_used_bytes=total - free,
        device_total_bytes=total,
        pinned_bytes=host_stats.get("allocated_bytes.peak"),
        alloc_retries=stats.get("num_alloc_retries", 0),
    )


def reset_peaks(device: int = 0) -> None:
    """Lets a stage's peaks begin at what is allocated now. Nothing happens where there is no CUDA."""
    import torch

    if _unavailable() is None:
        torch.cuda.reset_peak_memory_stats(device)
        if hasattr(torch.cuda, "reset_peak_host_memory_stats"):
            torch.cuda.reset_peak_host_memory_stats()


def device_uuid(device: int = 0) -> str | Missing:
    """The device's UUID as NVML writes it, ``GPU-...``: the one safe way from torch's index to NVML's device.

    torch gives it without the prefix. Makes no CUDA context.
    """
    import torch

    if not torch.cuda.is_available():
        return Missing.UNSUPPORTED
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    if not uuid:
        return Missing.UNSUPPORTED
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _unavailable() -> Missing | None:
    import torch

    if not torch.cuda.is_available():
        return Missing.UNSUPPORTED
    return None if torch.cuda.is_initialized() else Missing.NOT_APPLICABLE  # type: ignore[no-untyped-call]
