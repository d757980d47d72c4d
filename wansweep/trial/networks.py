"""The pipeline around a family's networks, and what it is made of.

Miniatures and random weights are made here, from the same numbers that FLOP are counted from; a checkpoint brings its own configs. The
modules are built on the CPU with the classes' own initial values, or on meta without any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline
from transformers import ByT5Tokenizer

from wansweep.case import Task
from wansweep.plan.architecture import Architecture
from wansweep.plan.networks import text_encoder, transformer, vae

WanPipe: TypeAlias = WanPipeline | WanImageToVideoPipeline


def pipeline_class(task: Task) -> type[WanPipe]:
    """The pipeline that does a task, whatever class the checkpoint was saved from (TI2V-5B does both)."""
    match task:
        case Task.I2V:
            kind: type[WanPipe] = WanImageToVideoPipeline
        case Task.T2V:
            kind = WanPipeline
    return kind


def modules(pipe: WanPipe) -> dict[str, torch.nn.Module]:
    """Component name to module, for the components that have weights."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def build(networks: Architecture, task: Task, *, boundary: float | None, device: str = "cpu") -> WanPipe:
    """A pipeline of fresh modules, as the hub's of that family: classes, configs, and a scheduler with flow_shift 3.0, the conversions' own.

    The tokenizer is byte-level (ByT5), which needs no file; its ids are the first 384 of the text encoder's vocabulary.

    Args:
        networks: Their numbers.
        task: Decides the pipeline's class.
        boundary: Share of the schedule above which the high-noise expert runs; null for one expert.
        device: ``cpu``, or ``meta`` for modules without memory.
    """
    parts = {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": _seeded(device, 0, lambda: text_encoder(networks.text_encoder)),
        "vae": _seeded(device, 0, lambda: vae(networks.vae)),
        "scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0),
        "transformer": _seeded(device, 1, lambda: transformer(networks.transformer)),
        "transformer_2": None if boundary is None else _seeded(device, 2, lambda: transformer(networks.transformer)),
        "boundary_ratio": boundary,
        "expand_timesteps": networks.transformer.token_timesteps,
    }
    if task is Task.I2V:
        parts |= {"image_encoder": None, "image_processor": None}  # Wan2.2 has no CLIP
    return pipeline_class(task)(**parts)


def _seeded(device: str, seed: int, make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A module whose initial values come from a seed; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return make().eval()
