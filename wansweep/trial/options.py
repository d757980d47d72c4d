"""Levers: what a case declares, applied to a loaded pipeline, and read back from it.

A lever that the machine or diffusers cannot do raises `Invalid` with the library's own reason; it is never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from wansweep.case import Case, Offload
from wansweep.trial.pipeline import WanPipe, modules

# Groups of blocks that wait and come together; streams need 1 (diffusers.hooks.group_offloading).
BLOCKS_PER_GROUP = 1


class Invalid(Exception):  # noqa: N818  (an outcome, not an error of ours)
    """The case cannot run here; the message is the reason."""


def apply_offload(pipe: WanPipe, case: Case, device: torch.device) -> None:
    """Place the pipeline's weights as the case's offload mode says.

    On a CPU the group and model modes run with the CPU as both ends: their hooks fire and nothing is moved. Sequential offload needs an
    accelerator (it parks weights on the meta device).

    Raises:
        Invalid: diffusers refuses the mode here.
    """
    cuda = device.type == "cuda"
    try:
        match case.offload:
            case Offload.NONE:
                pipe.to(device)
            case Offload.MODEL:
                pipe.enable_model_cpu_offload(device=device)
            case Offload.GROUP_BLOCK:
                kind = {"offload_type": "block_level", "num_blocks_per_group": BLOCKS_PER_GROUP}
                pipe.enable_group_offload(onload_device=device, use_stream=cuda, **kind)
            case Offload.GROUP_LEAF:
                pipe.enable_group_offload(onload_device=device, use_stream=cuda, offload_type="leaf_level")
            case Offload.SEQUENTIAL:
                pipe.enable_sequential_cpu_offload(device=device if cuda else None)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, ImportError, NotImplementedError) as error:
        raise Invalid(f"offload={case.offload} on {device.type}: {error}") from error


def hooks(pipe: WanPipe) -> dict[str, str]:
    """Component to the offload hook that is really installed on it; components without one are left out."""
    found: dict[str, str] = {}
    for name, module in modules(pipe).items():
        for part in module.modules():
            if hook := getattr(part, "_hf_hook", None):
                # accelerate chains hooks where a module has weights of its own beside its children's.
                found[name] = type(getattr(hook, "hooks", [hook])[0]).__name__
            elif registry := getattr(part, "_diffusers_hook", None):
                offloading = [hook for hook in registry.hooks if "offloading" in hook]
                if offloading:
                    found[name] = offloading[0]
            if name in found:
                break
    return found


def check_offload(case: Case, installed: dict[str, str], components: Iterable[str]) -> None:
    """Hold the declared offload mode against the hooks installed.

    Raises:
        Invalid: A component has another hook than the mode's, or none; or has one where none was declared.
    """
    wanted = {
        Offload.NONE: None,
        Offload.MODEL: "CpuOffload",
        Offload.SEQUENTIAL: "AlignDevicesHook",
        Offload.GROUP_BLOCK: "group_offloading",
        Offload.GROUP_LEAF: "group_offloading",
    }[case.offload]
    for name in components:
        if installed.get(name) != wanted:
            resolved = installed.get(name) or "no hook"
            raise Invalid(f"declared offload={case.offload} ({wanted or 'no hook'}), resolved {resolved} on {name}")


def attention_backend() -> str:
    """The backend that diffusers' dispatcher uses now; it is a setting of the process, not of a model."""
    return str(_AttentionBackendRegistry.get_active_backend()[0].value)


def dtypes(pipe: WanPipe) -> dict[str, str]:
    """Component to the number format most of its weights have."""
    return {name: str(module.dtype).removeprefix("torch.") for name, module in modules(pipe).items()}
