"""The ranks of a gang as one process group, and the transformers' sequence split among them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from torch.distributed.device_mesh import init_device_mesh

from wansweep.case import Case
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.task import Seat


@contextmanager
def process_group(seat: Seat, device: torch.device, *, timeout_s: float) -> Iterator[None]:
    """A process group over the gang while the ``with`` lasts: NCCL on GPUs, gloo on CPUs; nothing for a gang of one."""
    if seat.world == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=seat.rendezvous, rank=seat.rank, world_size=seat.world, timeout=timedelta(seconds=timeout_s))
    try:
        yield
    finally:
        dist.destroy_process_group()


def split_sequence(pipe: WanPipe, case: Case, seat: Seat, device: torch.device) -> None:
    """Split the sequence of both experts over the gang. Must come before any offload (diffusers #12533).

    The mesh is explicit because a config without one hangs when its degree is below the world size.
    """
    if seat.world == 1:
        return
    if device.type == "cpu":
        # diffusers takes a rank's device as rank % accelerator.device_count(), a division by zero without one.
        torch.accelerator.device_count = lambda: 1
    mesh = init_device_mesh(device.type, (1, case.ulysses), mesh_dim_names=("ring", "ulysses"))
    for expert in (pipe.transformer, pipe.transformer_2):
        if expert is not None:
            expert.enable_parallelism(config=ContextParallelConfig(ulysses_degree=case.ulysses, mesh=mesh))


def resolved_parallel(pipe: WanPipe) -> str:
    """The degrees in force, read back from the transformers; ``mixed`` when the experts differ."""
    found = set()
    for expert in (pipe.transformer, pipe.transformer_2):
        if expert is not None:
            config = getattr(expert, "_parallel_config", None)
            context = config.context_parallel_config if config else None
            found.add(f"ulysses{context.ulysses_degree}" if context else "none")
    return found.pop() if len(found) == 1 else "mixed"
