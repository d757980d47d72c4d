"""Loading: a checkpoint folder or hub id to a diffusers pipeline in the case's number format, ready on its device."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline

from wansweep.case import Case, Dtype, Task, Weights
from wansweep.sweep import ModelSource
from wansweep.trial.tiny import tiny_checkpoint

WanPipe: TypeAlias = WanPipeline | WanImageToVideoPipeline

TORCH_DTYPES = {Dtype.BF16: torch.bfloat16, Dtype.FP16: torch.float16, Dtype.FP32: torch.float32}
# Bytes between reads when a mapped file is pulled in; one a page is enough.
_PAGE = 4096


def checkpoint(case: Case, source: ModelSource) -> str:
    """The folder or hub id that the case's weights come from; a miniature is built first when it is not there."""
    match case.weights:
        case Weights.TINY:
            return str(tiny_checkpoint(case.model, boundary=source.boundary))
        case Weights.HUB:
            return source.repo
        case folder:
            return str(Path(folder).expanduser())


def load(case: Case, source: ModelSource, path: str) -> WanPipe:
    """The pipeline of a checkpoint in the case's number format, on the CPU.

    Two traps are met here. Without an explicit dtype diffusers casts bf16 weights to fp32, which doubles them; and the A14B
    checkpoints say flow_shift 3.0 where the official value is 12.0 or 5.0, so the case's shift is always set. The concrete pipeline class
    is used because ``DiffusionPipeline.from_pretrained`` ignores components passed to it.

    Raises:
        OSError: No checkpoint there, or the hub cannot be reached.
    """
    pipeline_class = WanImageToVideoPipeline if case.task is Task.I2V else WanPipeline
    dtypes = {"default": TORCH_DTYPES[case.dtype], "vae": torch.float32}
    pipe = pipeline_class.from_pretrained(path, dtype=dtypes, revision=source.revision)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=case.shift)
    pipe.set_progress_bar_config(disable=True)
    for module in modules(pipe).values():
        module.requires_grad_(requires_grad=False)
    return pipe


def read_weights(pipe: WanPipe) -> None:
    """Pull every weight that still waits on the CPU out of its mapped file.

    safetensors maps files and reads a page at its first use; without this the disk's time would land in the first step.
    """
    for module in modules(pipe).values():
        for tensor in module.parameters():
            if tensor.device.type == "cpu" and tensor.is_contiguous():
                tensor.view(-1)[:: _PAGE // tensor.element_size()].sum()


def modules(pipe: WanPipe) -> dict[str, torch.nn.Module]:
    """Component name to module, for the components that have weights."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
