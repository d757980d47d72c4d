"""The attention backend of diffusers' dispatcher (diffusers.models.attention_dispatch).

Setting it on one model also makes it the default of the process, which nothing undoes; so it is set for every case on both experts, the
default included, and read back a module at a time.
"""

from __future__ import annotations

from collections import Counter

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from wansweep.case import Case
from wansweep.levers import Attention
from wansweep.trial.experts import experts
from wansweep.trial.invalid import hold, refusals
from wansweep.trial.pipeline import WanPipe


def apply(pipe: WanPipe, case: Case, device: torch.device) -> None:
    """Set the declared backend on both experts, and try its kernel once on the device.

    A kernel that torch lacks here is refused at its first use only, so one small attention is run now.

    Raises:
        Invalid: diffusers or torch refuses the backend here.
    """
    with refusals(f"attention={case.attention} on {device.type}"):
        for expert in experts(pipe).values():
            expert.set_attention_backend(str(case.attention))
        if case.attention is not Attention.NATIVE or case.ring > 1:
            _try(pipe, device)


def _try(pipe: WanPipe, device: torch.device) -> None:
    """One attention of the model's heads and number format through the active backend, shared by the ranks as the model's own are."""
    backend, kernel = _AttentionBackendRegistry.get_active_backend()
    config = pipe.transformer.config
    query = torch.zeros(1, 16, config.num_attention_heads, config.attention_head_dim, device=device, dtype=pipe.transformer.dtype)
    assert AttentionBackendName(backend) is backend, backend
    split = {} if pipe.transformer._parallel_config is None else {"_parallel_config": pipe.transformer._parallel_config}
    kernel(query=query, key=query, value=query, **split)


def backends(pipe: WanPipe) -> dict[str, str]:
    """Expert to the backend that its attention modules use: one name, or each with how many modules use it."""
    default = _AttentionBackendRegistry.get_active_backend()[0]
    found = {}
    for name, expert in experts(pipe).items():
        processors = [part.processor for part in expert.modules() if hasattr(part, "processor")]
        used = Counter(str((getattr(processor, "_attention_backend", None) or default).value) for processor in processors)
        found[name] = next(iter(used)) if len(used) == 1 else ", ".join(f"{backend} in {n} modules" for backend, n in used.items()) or "none"
    return found


def check(pipe: WanPipe, case: Case) -> None:
    """Hold the declared backend against every attention module of both experts.

    Raises:
        Invalid: Some module uses another.
    """
    for name, backend in backends(pipe).items():
        hold("attention", declared=str(case.attention), resolved=backend if backend == case.attention else f"{backend} on {name}")


def resolved(pipe: WanPipe) -> str:
    """The backend in force on both experts; each expert's where they differ."""
    found = backends(pipe)
    return next(iter(found.values())) if len(set(found.values())) == 1 else "; ".join(f"{name}: {used}" for name, used in found.items())
