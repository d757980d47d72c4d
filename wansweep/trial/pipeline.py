"""Loading: any of the four sources of weights to a diffusers pipeline in the case's number format."""

from __future__ import annotations

import torch

from wansweep.case import Case
from wansweep.levers import Offload
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.sweep import ModelSource
from wansweep.trial import checkpoint as checkpoints
from wansweep.trial import random_weights, solvers
from wansweep.trial.checkpoint import Checkpoint
from wansweep.trial.converted import converted, stored_dtype
from wansweep.trial.formats import cast, component_dtype
from wansweep.trial.networks import WanPipe, pipeline_class
from wansweep.trial.spans import Span, Spans

__all__ = ["WanPipe", "checkpoint", "load", "modules", "read_weights"]

CPU = torch.device("cpu")
# Bytes between reads when a mapped file is pulled in; one a page is enough.
_PAGE = 4096


def checkpoint(case: Case, source: ModelSource, *, convert: bool = True) -> Checkpoint:
    """Where the case's weights are on this node, fetched, built or converted first when they are not there yet.

    Args:
        case: Its weights and number format.
        source: Of the hub's files.
        convert: Whether files in another format are converted once into the cache; else they are cast at every load.

    Raises:
        NoWeightsError: There are none, they are not whole, or the cache has no room.
    """
    found = checkpoints.locate(case, source)
    return converted(found, case.dtype) if convert else found


def load(case: Case, source: ModelSource, weights: Checkpoint, *, device: torch.device = CPU, spans: Spans | None = None) -> WanPipe:
    """The pipeline in the case's number format: from files on the CPU, random weights where `home` says.

    Args:
        case: As it runs.
        source: Of its boundary, for random weights.
        weights: From `checkpoint`.
        device: Where the case computes.
        spans: Take the seconds of each part of loading.
    """
    spans = spans or Spans(device)
    if weights.folder is None:
        with spans(Span.OPEN):
            pipe = random_weights.construct(ARCHITECTURES[case.model], case.task, boundary=source.boundary)
        with spans(Span.FILL):
            random_weights.materialise(pipe, case.dtype, home(case, device))
    else:
        pipe = _from_files(case, weights, spans)
    solvers.apply(pipe, case)
    pipe.set_progress_bar_config(disable=True)
    for module in modules(pipe).values():
        module.requires_grad_(requires_grad=False)
    return pipe


def home(case: Case, device: torch.device) -> torch.device:
    """Where weights are before the first step: on the device, or on the host with any offload."""
    return device if case.offload is Offload.NONE else CPU


def _from_files(case: Case, weights: Checkpoint, spans: Spans) -> WanPipe:
    """Opened in the files' own formats, then read, then cast, so that each can be timed: ``from_pretrained`` would cast while it maps.

    Two traps are met here. Without an explicit dtype diffusers casts bf16 weights to fp32, which doubles them. And the concrete pipeline
    class is used because ``DiffusionPipeline.from_pretrained`` ignores components passed to it.
    """
    with spans(Span.OPEN):
        wanted = {part: component_dtype(part, case.dtype) for part in weights.components()}
        dtypes = {part: stored_dtype(weights, part) or dtype for part, dtype in wanted.items()}
        pipe = pipeline_class(case.task).from_pretrained(weights.folder, dtype={**dtypes, "default": component_dtype("", case.dtype)})
    with spans(Span.READ):
        read_weights(pipe)
    with spans(Span.CAST):
        for part, module in modules(pipe).items():
            cast(module, wanted[part])
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
