"""Loading: any of the four sources of weights to a diffusers pipeline in the case's number format."""

from __future__ import annotations

import torch

from wansweep.case import Case
from wansweep.levers import Offload
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.sweep import ModelSource
from wansweep.trial import checkpoint as checkpoints
from wansweep.trial import gguf_files, host_memory, random_weights, solvers
from wansweep.trial.checkpoint import Checkpoint
from wansweep.trial.converted import converted, stored_dtype
from wansweep.trial.formats import cast, component_dtype
from wansweep.trial.networks import WanPipe, modules, pipeline_class
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
            gguf_files.load(case, weights)  # refuses: there is no config to read one by
            pipe = random_weights.construct(ARCHITECTURES[case.model], case.task, boundary=source.boundary)
        if home(case, device) == CPU:
            host_memory.hold_loaded(sum(_bytes(name, module, case) for name, module in modules(pipe).items()), case)
        with spans(Span.FILL):
            random_weights.materialise(pipe, case.dtype, home(case, device))
    else:
        pipe = _from_files(case, weights, device, spans)
    solvers.apply(pipe, case)
    pipe.set_progress_bar_config(disable=True)
    for module in modules(pipe).values():
        module.requires_grad_(requires_grad=False)
    return pipe


def home(case: Case, device: torch.device) -> torch.device:
    """Where weights are before the first step: on the device, or on the host with any offload."""
    return device if case.offload is Offload.NONE else CPU


def _bytes(component: str, module: torch.nn.Module, case: Case) -> int:
    return host_memory.weight_bytes(module, component_dtype(component, case.dtype))


def _from_files(case: Case, weights: Checkpoint, device: torch.device, spans: Spans) -> WanPipe:
    """Opened in the files' own formats, then read, then cast, so that each can be timed: ``from_pretrained`` would cast while it maps.

    Two traps are met here. Without an explicit dtype diffusers casts bf16 weights to fp32, which doubles them. And the concrete pipeline
    class is used because ``DiffusionPipeline.from_pretrained`` ignores components passed to it.
    """
    with spans(Span.OPEN):
        wanted = {part: component_dtype(part, case.dtype) for part in weights.components()}
        dtypes = {part: stored_dtype(weights, part) or dtype for part, dtype in wanted.items()}
        host_memory.hold_loaded(_host_bytes(case, weights, device, wanted, dtypes), case)
        given = gguf_files.load(case, weights)
        formats = {**dtypes, "default": component_dtype("", case.dtype)}
        # Never the pickles that a folder may hold beside them.
        pipe = pipeline_class(case.task).from_pretrained(weights.folder, **given, dtype=formats, use_safetensors=True)
    with spans(Span.READ):
        read_weights(pipe)
    with spans(Span.CAST):
        for part, module in modules(pipe).items():
            cast(module, wanted[part])
    return pipe


def _host_bytes(case: Case, weights: Checkpoint, device: torch.device, wanted: dict[str, torch.dtype], stored: dict[str, torch.dtype]) -> int:
    """What the weights of files will take of the host: those that stay there, and the copies of those that are cast.

    A mapped file that is only passed through, on its way to the device or to group_disk's own files, is page cache, which the host can drop.
    """
    stays = home(case, device) == CPU and not case.group_disk
    parts = {part: sum(file.stat().st_size for file in weights.files(part)) for part in wanted}
    return sum(size * wanted[part].itemsize // stored[part].itemsize for part, size in parts.items() if stays or wanted[part] != stored[part])


def read_weights(pipe: WanPipe) -> None:
    """Pull every weight that still waits on the CPU out of its mapped file.

    safetensors maps files and reads a page at its first use; without this the disk's time would land in the first step.
    """
    for module in modules(pipe).values():
        for tensor in module.parameters():
            # GGUF's are copies, and no tensor of theirs may be a scalar.
            if tensor.device.type == "cpu" and tensor.is_contiguous() and not hasattr(tensor, "quant_type"):
                tensor.view(-1)[:: _PAGE // tensor.element_size()].sum()
