"""Options of group offload as diffusers' hooks have them, each held against the declared one (diffusers.hooks.group_offloading)."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

import torch
from diffusers.hooks.group_offloading import ModuleGroup

from wansweep.case import Case
from wansweep.levers import Offload
from wansweep.trial.experts import experts
from wansweep.trial.invalid import hold
from wansweep.trial.pipeline import WanPipe

MODES = (Offload.GROUP_BLOCK, Offload.GROUP_LEAF)


def declared(case: Case, device: torch.device, *, layers: int) -> dict[str, str]:
    """Option to the value that the hooks must have.

    Args:
        case: Declares them.
        device: A stream is asked for only where it has streams.
        layers: Blocks of an expert; a group cannot have more.
    """
    wanted = {
        "group_blocks": "leaves" if case.offload is Offload.GROUP_LEAF and case.group_blocks == 1 else str(min(case.group_blocks, layers)),
        "group_stream": str(case.group_stream and device.type == "cuda"),
        "group_record_stream": str(case.group_record_stream),
        "group_non_blocking": str(case.group_non_blocking),
        "group_low_cpu_mem": str(case.group_low_cpu_mem),
        "group_disk": str(case.group_disk),
    }
    if wanted["group_stream"] == "True":
        del wanted["group_non_blocking"]  # what a stream copies blocks nobody, after the first forward
    return wanted


def resolved(pipe: WanPipe) -> dict[str, str]:
    """Option to its value in the experts' hooks, the values joined where groups differ; empty without hooks.

    Each group's own attributes are read, not the config it was asked for with. Groups without a stream beside ones with it (what is outside
    the blocks) are left out, as are the last blocks where they do not fill a group.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for expert in experts(pipe).values():
        groups = _groups(expert)
        streamed = [group for group in groups if group.stream is not None]
        moved = [group for group in streamed or groups if group.modules or group.parameters]
        widest = max((_blocks(expert, group) for group in moved), default=0)
        if moved:
            found["group_blocks"].add(str(widest) if widest else "leaves")
        for group in moved:
            found["group_stream"].add(str(group.stream is not None))
            found["group_record_stream"].add(str(bool(group.record_stream)))
            found["group_low_cpu_mem"].add(str(bool(group.low_cpu_mem_usage)))
            found["group_disk"].add(str(group.offload_to_disk_path is not None))
            # What is outside the blocks is always moved blocking.
            if widest == 0 or _blocks(expert, group):
                found["group_non_blocking"].add(str(bool(group.non_blocking)))
    return {option: " and ".join(sorted(values)) for option, values in found.items()}


def _groups(module: torch.nn.Module) -> list[ModuleGroup]:
    """The groups of a module, each once."""

    def of_hooks() -> Iterator[ModuleGroup]:
        for part in module.modules():
            registry = getattr(part, "_diffusers_hook", None)
            hook = registry.get_hook("group_offloading") if registry else None
            if hook is not None:
                yield hook.group

    return list({id(group): group for group in of_hooks()}.values())


def _blocks(expert: torch.nn.Module, group: ModuleGroup) -> int:
    """How many of an expert's blocks a group moves."""
    blocks = {id(block) for block in expert.get_submodule("blocks").children()}
    return sum(id(module) in blocks for module in group.modules)


def check(pipe: WanPipe, case: Case, device: torch.device) -> None:
    """Hold each declared option against the hooks.

    Raises:
        Invalid: One differs, in either expert.
    """
    wanted = declared(case, device, layers=len(pipe.transformer.blocks))
    if case.offload not in MODES:
        # Options at their defaults declare nothing of a mode that has no groups.
        wanted = {option: value for option, value in wanted.items() if option in _changed(case)}
    found = resolved(pipe)
    for option, value in wanted.items():
        hold(option, declared=value, resolved=found.get(option, "no group"))


def _changed(case: Case) -> set[str]:
    """The options that are not at their defaults."""
    options = {field.name: field.default for field in dataclasses.fields(Case) if field.name.startswith("group_")}
    return {name for name, default in options.items() if getattr(case, name) != default}
