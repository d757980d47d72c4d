"""The ranks of a gang as one process group and one mesh: the two forwards of CFG, the sequence, and the experts' weights shared among them.

The mesh is (copy, cfg, ring, ulysses), outermost first, so that the ranks that talk most are nearest. diffusers splits the sequence over
ring and ulysses, `trial.guidance` gives each half of cfg one forward, and PyTorch's fully_shard shards weights over the whole gang. Copies do
the same work; only with fsdp are there any, where ranks are wanted for their memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, WanTransformer3DModel
from diffusers.hooks.context_parallel import ContextParallelGatherHook, ContextParallelSplitHook
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from wansweep.case import Case, degrees_in_words
from wansweep.record import Share
from wansweep.trial.experts import experts
from wansweep.trial.invalid import Invalid, hold, refusals
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.task import Seat

# By how much a final latent may differ between ranks: far under a bf16 rounding of it (their standard deviation is about 1). Every rank
# steps its own scheduler from the same gathered predictions, so it is 0 where all ranks are the same device.
RANKS_TOLERANCE = 1e-4


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


def split(pipe: WanPipe, case: Case, seat: Seat, device: torch.device) -> DeviceMesh | None:
    """Share both experts' work and weights among the gang; the mesh, null for a gang of one. Comes before any offload (diffusers #12533).

    The mesh is explicit because a config without one hangs when its degree is below the world size.

    Raises:
        Invalid: diffusers or PyTorch refuses a mode here.
    """
    if seat.world == 1:
        return None
    shape = (seat.world // (case.cfg_parallel * case.ring * case.ulysses), case.cfg_parallel, case.ring, case.ulysses)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("copy", "cfg", "ring", "ulysses"))
    with refusals(f"parallel={case.parallel} on {device.type}"), _one_device() if device.type == "cpu" else nullcontext():
        for expert in experts(pipe).values():
            if case.ring * case.ulysses > 1:
                _split_sequence(expert, case, mesh)
            if case.fsdp:
                _shard(expert, mesh)
    return mesh


@contextmanager
def _one_device() -> Iterator[None]:
    """One device, while it lasts: diffusers takes rank % accelerator.device_count(), a division by zero without one."""
    counts = torch.accelerator.device_count
    torch.accelerator.device_count = lambda: 1
    try:
        yield
    finally:
        torch.accelerator.device_count = counts


def _split_sequence(expert: WanTransformer3DModel, case: Case, mesh: DeviceMesh) -> None:
    # Refused by the backend of the process otherwise, which an earlier case may have left.
    expert.set_attention_backend(str(case.attention))
    expert.enable_parallelism(config=ContextParallelConfig(ring_degree=case.ring, ulysses_degree=case.ulysses, mesh=mesh))


def _shard(expert: WanTransformer3DModel, mesh: DeviceMesh) -> None:
    """Each block a group of its own, and the rest another, gathered when it computes and freed after.

    A group may mix number formats only while none of its weights wants a gradient (torch FSDPParamGroup._init_mp_dtypes): so the blocks' fp32
    islands go with them, as bytes.
    """
    expert.requires_grad_(requires_grad=False)
    gang = mesh._flatten("gang")
    for block in expert.blocks:
        fully_shard(block, mesh=gang)
    # Or what is outside the blocks would stay whole after the first forward, on both experts.
    fully_shard(expert, mesh=gang, reshard_after_forward=True)


def resolved_parallel(pipe: WanPipe, *, cfg: int) -> str:
    """The degrees in force, read back from the transformers; ``mixed`` when the experts differ.

    Args:
        pipe: Split.
        cfg: Halves of CFG that were seen at work.
    """
    found = {_in_force(expert, cfg=cfg) for expert in experts(pipe).values()}
    return found.pop() if len(found) == 1 else f"mixed ({', '.join(sorted(found))})"


def _in_force(expert: WanTransformer3DModel, *, cfg: int) -> str:
    ring, ulysses = _sequence_degrees(expert)
    return degrees_in_words(cfg=cfg, ring=ring, ulysses=ulysses, fsdp=_is_sharded(expert))


def _sequence_degrees(expert: WanTransformer3DModel) -> tuple[int, int]:
    """Ring and Ulysses as the mesh has them, if every self-attention knows of it, and the sequence is split before and gathered after."""
    config = expert._parallel_config
    context = config.context_parallel_config if config else None
    hooks = [hook for part in expert.modules() for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}).values()]
    whole = all(any(isinstance(hook, kind) for hook in hooks) for kind in (ContextParallelSplitHook, ContextParallelGatherHook))
    if context is None or not whole or any(block.attn1.processor._parallel_config is not config for block in expert.blocks):
        return 1, 1
    return context._ring_mesh.size(), context._ulysses_mesh.size()


def _is_sharded(expert: WanTransformer3DModel) -> bool:
    """Whether every block is wrapped and this rank holds less than the whole expert."""
    share = shard_bytes(expert)
    return all(isinstance(part, FSDPModule) for part in (expert, *expert.blocks)) and share.count < share.of


def shard_bytes(expert: torch.nn.Module) -> Share:
    """Bytes of the expert's weights that this rank holds between forwards, of all."""
    held = sum(p.to_local().nbytes if isinstance(p, DTensor) else p.nbytes for p in expert.parameters())
    return Share(count=held, of=sum(p.numel() * p.element_size() for p in expert.parameters()))


def check(pipe: WanPipe, case: Case, *, cfg: int) -> None:
    """Hold the declared degrees against those in force.

    Args:
        pipe: Split.
        case: Declares them.
        cfg: Halves of CFG that were seen at work, or are to be.

    Raises:
        Invalid: They differ.
    """
    hold("parallel", declared=case.parallel, resolved=resolved_parallel(pipe, cfg=cfg))


def agree(latents: torch.Tensor, seat: Seat) -> float | None:
    """By how much the ranks' final latents differ at most; null for a gang of one. Every rank calls it, and gets the same answer.

    Raises:
        Invalid: By more than `RANKS_TOLERANCE`.
    """
    if seat.world == 1:
        return None
    first = latents.float().contiguous()
    own = first.clone()
    dist.broadcast(first, 0)
    same = (own == first) | (own.isnan() & first.isnan())
    error = torch.where(same, 0.0, (own - first).abs()).max()
    dist.all_reduce(error, dist.ReduceOp.MAX)
    # Not `>`: a NaN on one rank alone is no agreement.
    if not float(error) <= RANKS_TOLERANCE:
        raise Invalid(f"the ranks ended with different latents, by {float(error):.2g} at most where {RANKS_TOLERANCE:g} may be")
    return float(error)
