"""Whether the host has the memory that a case is about to take for weights. Asked first: a host without any left kills, or stops.

RLIMIT_MEMLOCK is not asked: cudaHostAlloc locks pages in the driver, which does not count them against it. cgroups do count them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from wansweep.case import Case
from wansweep.levers import Offload, TextEncoder, Weights
from wansweep.telemetry.limits import available_memory_bytes
from wansweep.trial.formats import weight_dtype
from wansweep.trial.invalid import Invalid
from wansweep.trial.networks import WanPipe, modules

# Pinned memory cannot be swapped out, and what is left must run Python, CUDA's own buffers and the video.
PINNED_SHARE = 0.9
_GROUP = (Offload.GROUP_BLOCK, Offload.GROUP_LEAF)


def hold_pinned(pipe: WanPipe, case: Case, device: torch.device, *, available_bytes: int | None = None) -> None:
    """Hold what the case is about to pin against what the host has.

    Args:
        pipe: Loaded, on the host.
        case: Declares the offload mode.
        device: Nothing is pinned for a CPU.
        available_bytes: Of the host; null to ask it.

    Raises:
        Invalid: It has too little; with the need, what there is, and the way out.
    """
    need = pinned_peak_bytes([tensors(modules(pipe)[name]) for name in pinned_components(pipe, case, device)], lets_go=_anonymous(case))
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if need and available is not None and need > PINNED_SHARE * available:
        raise Invalid(
            f"{_pins(case)}: {need / 1e9:.1f} GB to pin (torch rounds each tensor up to a power of two), of {available / 1e9:.1f} GB of host "
            f"memory available at most {100 * PINNED_SHARE:.0f} % may be; {_way_out(case)}"
        )


def pinned_components(pipe: WanPipe, case: Case, device: torch.device) -> list[str]:
    """The components whose weights are all pinned before the first step, in the order in which they are."""
    if device.type != "cuda":
        return []
    if case.offload is Offload.EXPERT_PINNED:
        return [name for name in modules(pipe) if name.startswith("transformer")]
    if case.offload in _GROUP and case.group_stream and not case.group_low_cpu_mem and not case.group_disk:
        on_cpu = case.text_encoder is TextEncoder.CPU
        return [name for name in modules(pipe) if not (on_cpu and name == "text_encoder")]
    return []


def tensors(module: torch.nn.Module) -> list[int]:
    """Bytes of each tensor of a module that offload would pin."""
    return [tensor.nbytes for tensor in (*module.parameters(), *module.buffers())]


def pinned_peak_bytes(components: Iterable[Sequence[int]], *, lets_go: bool) -> int:
    """Host memory that pinning takes on top of the loaded weights, at its highest.

    Both diffusers (ModuleGroup._init_cpu_param_dict) and we pin a copy of a whole component and then let its plain copy go. Each copy's
    size is a power of two, as torch's host allocator rounds it (ATen/core/CachingHostAllocator.h): 1.5 times the weights of an A14B expert.

    Args:
        components: Bytes of each tensor, a component at a time.
        lets_go: Whether the plain copies are memory of this process, and so given back; pages of a mapped file were available before.
    """
    held, peak = 0, 0
    for sizes in components:
        held += sum(_rounded(size) for size in sizes)
        peak = max(peak, held)
        held -= sum(sizes) if lets_go else 0
    return peak


def hold_loaded(need_bytes: int, case: Case, *, available_bytes: int | None = None) -> None:
    """Hold weights that loading puts on the host against what it has.

    Args:
        need_bytes: Of them.
        case: Says where they come from and wait.
        available_bytes: Of the host; null to ask it.

    Raises:
        Invalid: It has too little.
    """
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if available is not None and need_bytes > available:
        raise Invalid(
            f"weights={case.weights} with offload={case.offload}: {need_bytes / 1e9:.1f} GB of weights to keep on the host, which has "
            f"{available / 1e9:.1f} GB of memory available; offload=none keeps them on the GPU, group_disk=true on disk"
        )


def weight_bytes(module: torch.nn.Module, dtype: torch.dtype) -> int:
    """What a module's weights take in a format, on whatever device they are; a weight with two names once."""
    return sum(weight.numel() * weight_dtype(type(module), name, dtype).itemsize for name, weight in module.named_parameters())


def _rounded(size: int) -> int:
    return 1 << (size - 1).bit_length() if size else 0


def _anonymous(case: Case) -> bool:
    """Whether loaded weights are memory of the process; those from files are mapped."""
    return case.weights == Weights.RANDOM


def _pins(case: Case) -> str:
    return f"offload={case.offload}" if case.offload is Offload.EXPERT_PINNED else f"offload={case.offload} with group_stream=true"


def _way_out(case: Case) -> str:
    if case.offload is Offload.EXPERT_PINNED:
        return f"offload={Offload.EXPERT} and {Offload.MODEL} need no pinned memory"
    return f"group_low_cpu_mem=true pins as it copies, group_stream=false and offload={Offload.MODEL} need no pinned memory"
