"""Where weights wait: diffusers' offload modes, ours for the experts, and the components that a case keeps elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading

from wansweep.case import Case
from wansweep.levers import Offload, TextEncoder
from wansweep.record import Expert, StageKind
from wansweep.trial import host_memory
from wansweep.trial.experts import experts
from wansweep.trial.invalid import Invalid, hold, refusals
from wansweep.trial.pipeline import WanPipe, modules
from wansweep.trial.placement import ExpertSwap, Placement


def apply_offload(pipe: WanPipe, case: Case, device: torch.device, *, scratch: Path | None = None) -> Placement:
    """Place the pipeline's weights as the case says, and return what moves them between stages.

    On a CPU the group, model and expert modes run with the CPU as both ends: their hooks fire and nothing is moved but the experts'
    copies. Sequential offload needs an accelerator (it parks weights on the meta device), and so do pinned memory and streams; a declared
    stream is left out on a CPU, as it is the default.

    Args:
        pipe: On the CPU.
        case: Declares the mode.
        device: Of the rank.
        scratch: Folder for weights that wait on disk.

    Raises:
        Invalid: diffusers or the machine refuses the mode here, or the host has too little memory to pin.
    """
    cuda = device.type == "cuda"
    swap = None
    host_memory.hold_pinned(pipe, case, device)
    with refusals(f"offload={case.offload} on {device.type}"):
        match case.offload:
            case Offload.NONE:
                _place(pipe, case, device, list(modules(pipe)))
            case Offload.EXPERT | Offload.EXPERT_PINNED:
                _place(pipe, case, device, [name for name in modules(pipe) if name not in experts(pipe)])
                swap = ExpertSwap(list(experts(pipe).values()), device, pinned=case.offload is Offload.EXPERT_PINNED)
            case Offload.MODEL:
                pipe.enable_model_cpu_offload(device=device)
            case Offload.GROUP_BLOCK | Offload.GROUP_LEAF:
                _group(pipe, case, device, scratch)
            case Offload.SEQUENTIAL:
                pipe.enable_sequential_cpu_offload(device=device if cuda else None)
        if case.vae_offload:
            cpu_offload_with_hook(pipe.vae, device)
    return Placement(device=device, swap=swap, vae_offload=case.vae_offload)


def _place(pipe: WanPipe, case: Case, device: torch.device, names: list[str]) -> None:
    """The named components on the device, but for T5 and VAE where the case keeps them on the CPU."""
    kept = {"text_encoder": case.text_encoder is TextEncoder.CPU, "vae": case.vae_offload}
    for name in names:
        if not kept.get(name):
            modules(pipe)[name].to(device)


def _group(pipe: WanPipe, case: Case, device: torch.device, scratch: Path | None) -> None:
    """Group offload, a component at a time, but for T5 where it stays on the CPU.

    Not pipe.enable_group_offload: it gives all components one folder, and files are named after the group alone, so the two experts would
    read each other's blocks from disk (diffusers.hooks.group_offloading, group_id; the miniature's latents were off by 3.0).
    """
    kind: dict[str, Any] = {"offload_type": "leaf_level"}
    if case.offload is Offload.GROUP_BLOCK:
        kind = {"offload_type": "block_level", "num_blocks_per_group": case.group_blocks}
    for name, module in modules(pipe).items():
        if name == "text_encoder" and case.text_encoder is TextEncoder.CPU:
            continue
        if case.group_disk:
            assert scratch is not None, case
            kind["offload_to_disk_path"] = str(scratch / "weights" / name)
        apply_group_offloading(
            module,
            onload_device=device,
            use_stream=case.group_stream and (device.type == "cuda" or _asks_for_streams(case)),
            record_stream=case.group_record_stream,
            non_blocking=case.group_non_blocking,
            low_cpu_mem_usage=case.group_low_cpu_mem,
            **kind,
        )


def _asks_for_streams(case: Case) -> bool:
    """Whether an option is declared that means nothing without a stream: then a device without streams is told, not passed over."""
    return case.group_record_stream or case.group_low_cpu_mem


def hooks(pipe: WanPipe, placement: Placement | None = None) -> dict[str, str]:
    """Component to the offload hook that is really installed on it; components without one are left out."""
    found: dict[str, str] = {}
    for name, module in modules(pipe).items():
        if placement and placement.swap and placement.swap.holds(module):
            found[name] = "ExpertSwap"
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


def devices(pipe: WanPipe) -> dict[str, str]:
    """Component to the device type of its weights; joined where they are spread."""
    return {name: "+".join(sorted({p.device.type for p in module.parameters()})) for name, module in modules(pipe).items()}


class StageDevices:
    """Where each component's weights were at the end of a stage of each kind, and of each expert's first step.

    A few layers stand for a component, found by name each time: offload puts other tensors in their place, and a dropped one is gone.

    Attributes:
        seen: Stage, with the expert where there are two, to component to device types.
    """

    LAYERS = 8

    def __init__(self, pipe: WanPipe) -> None:
        self._pipe = pipe
        self._layers = {name: _spread(module, self.LAYERS) for name, module in modules(pipe).items()}
        self.seen: dict[str, dict[str, str]] = {}

    def __call__(self, kind: StageKind, expert: Expert | None) -> None:
        """Take note, once a stage; of Total_Execution nothing, which is all of them."""
        if kind is StageKind.TOTAL_EXECUTION:
            return
        stage = f"{kind} ({expert})" if expert else str(kind)
        if stage not in self.seen:
            self.seen[stage] = {name: self._where(module, name) for name, module in modules(self._pipe).items()}

    def _where(self, module: torch.nn.Module, name: str) -> str:
        layers = (module.get_submodule(layer) for layer in self._layers[name])
        return "+".join(sorted({p.device.type for layer in layers for p in layer.parameters(recurse=False)}))


def _spread(module: torch.nn.Module, count: int) -> list[str]:
    """Names of so many of the layers that have weights of their own, evenly from first to last."""
    names = [name for name, layer in module.named_modules() if next(layer.parameters(recurse=False), None) is not None]
    step = max(1, (len(names) - 1) // max(1, count - 1))
    return list(dict.fromkeys([*names[::step][: count - 1], *names[-1:]]))


def check_offload(case: Case, installed: dict[str, str]) -> None:
    """Hold the declared offload mode against the hooks installed on both experts, and the VAE's own against its.

    Raises:
        Invalid: The mode was declared, and a component with weights to move has no hook of it; or hooks where none were declared.
    """
    wanted = {
        Offload.NONE: None,
        Offload.EXPERT: "ExpertSwap",
        Offload.EXPERT_PINNED: "ExpertSwap",
        Offload.MODEL: "CpuOffload",
        Offload.SEQUENTIAL: "AlignDevicesHook",
        Offload.GROUP_BLOCK: "group_offloading",
        Offload.GROUP_LEAF: "group_offloading",
    }[case.offload]
    two = case.model.has_two_experts
    for name in ("transformer", "transformer_2") if two else ("transformer",):
        found = installed.get(name)
        if found != wanted:
            raise Invalid(f"declared offload={case.offload} ({wanted or 'no hook'}), resolved {found or 'no hook'} on the {name}")
    if case.vae_offload:
        hold("vae_offload", declared="CpuOffload", resolved=installed.get("vae", "no hook on the vae"))
    if case.text_encoder is TextEncoder.CPU:
        hold("text_encoder=cpu", declared="no hook", resolved=installed.get("text_encoder", "no hook"))


def check_swaps(case: Case, *, swaps: int, wanted: int) -> None:
    """Hold how often an expert came against how often one had to.

    Raises:
        Invalid: They differ.
    """
    hold("offload", declared=f"{case.offload} with {wanted} swaps", resolved=f"{case.offload} with {swaps} swaps")


def check_moves(pipe: WanPipe, case: Case, placement: Placement) -> None:
    """After a generation: hold where T5 and VAE are against what was declared.

    Raises:
        Invalid: The VAE never left, T5 is still there, or it is not where it was to be.
    """
    if case.vae_offload and not placement.vae_parked:
        raise Invalid("declared vae_offload=True, resolved a VAE that never left the device")
    present = pipe.text_encoder is not None
    if (case.text_encoder is TextEncoder.DROPPED) == present:
        raise Invalid(f"declared text_encoder={case.text_encoder}, resolved {'still there' if present else 'dropped'}")
    if case.text_encoder is TextEncoder.CPU:
        hold("text_encoder", declared="cpu", resolved=devices(pipe)["text_encoder"])
