"""Levers: what a case declares, applied to a loaded pipeline in the one order that works, and read back from it.

Each family has a module with `apply` and `check`. A lever that the machine or diffusers cannot do raises `Invalid` with the library's own
reason, one that is declared and not in force raises it with both values; none is dropped in silence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from wansweep.case import Case
from wansweep.levers import Compile
from wansweep.plan.rules import forbidden
from wansweep.record import Expert, Share
from wansweep.trial import attention, caches, compilation, guidance, offload, projections, quantise, solvers, vae
from wansweep.trial.generate import expert_schedule
from wansweep.trial.invalid import Invalid
from wansweep.trial.offload import apply_offload, check_offload, hooks
from wansweep.trial.pipeline import WanPipe, modules
from wansweep.trial.placement import Placement


@dataclass(kw_only=True)
class InForce:
    """What one generation showed of the levers.

    Attributes:
        hooks: Component to the offload hook on it.
        devices: Component to where its weights were.
        tiles: Tiled decodes.
        decodes: Decodes of the VAE; a slice is one.
        blocks: Expert to how often its last block computed.
        swaps: How often an expert came to the device.
        forwards: Of the transformer in a step; null where torch.compile hides them.
        graphs: Graphs that torch.compile had made before; null where nothing compiles.
    """

    hooks: dict[str, str]
    devices: dict[str, str]
    tiles: int = 0
    decodes: int = 0
    blocks: dict[str, Share] = field(default_factory=dict)
    swaps: int | None = None
    forwards: int | None = None
    graphs: int | None = None


def refuse(case: Case) -> None:
    """Hold the case against the rules of `plan.rules`.

    Raises:
        Invalid: A rule forbids it.
    """
    if reason := forbidden(case):
        raise Invalid(reason)


def apply_to_weights(pipe: WanPipe, case: Case) -> None:
    """Levers of a loaded pipeline that is still on the CPU, in the order that they build on each other; each is then checked.

    Raises:
        Invalid: One is refused, or not in force.
    """
    refuse(case)
    projections.apply(pipe, case)
    quantise.apply(pipe, case)
    vae.apply(pipe, case)
    projections.check(pipe, case)
    quantise.check(pipe, case)
    vae.check(pipe, case)


def place(pipe: WanPipe, case: Case, device: torch.device, *, scratch: Path | None = None) -> Placement:
    """Levers of where weights are, and of attention, which is tried on its device; each is then checked. Comes after any split of sequences.

    Raises:
        Invalid: One is refused, or not in force.
    """
    attention.apply(pipe, case, device)
    attention.check(pipe, case)
    placement = apply_offload(pipe, case, device, scratch=scratch)
    check_offload(case, hooks(pipe, placement))
    return placement


def enable_cache(pipe: WanPipe, case: Case, generate: Callable[[], object]) -> None:
    """The cache, last of what has no stage of its own; mag calls ``generate`` once to calibrate.

    Raises:
        Invalid: It is refused.
    """
    caches.apply(pipe, case, generate)


@contextmanager
def watched(pipe: WanPipe, case: Case, placement: Placement) -> Iterator[InForce]:
    """Watches one generation inside the ``with``, from clean caches, and holds what it showed against what was declared.

    Raises:
        Invalid: A lever was declared and did nothing.
    """
    shown = InForce(
        hooks=hooks(pipe, placement), devices=offload.devices(pipe), graphs=compilation.graphs() if compilation.needed(case) else None
    )
    caches.reset(pipe)
    with ExitStack() as watching:
        decodes = watching.enter_context(vae.counted_decodes(pipe))
        # A hook inside what is compiled would be compiled too.
        if case.compile is Compile.NONE:
            shown.blocks = watching.enter_context(caches.counted(pipe))
        swaps_before = placement.swap.swaps if placement.swap else 0
        resident = placement.swap.resident if placement.swap else None
        yield shown
    shown.decodes, shown.tiles = decodes["_decode"], decodes["tiled_decode"]
    if placement.swap:
        shown.swaps = placement.swap.swaps - swaps_before
        offload.check_swaps(case, swaps=shown.swaps, wanted=_swaps(pipe, resident))
    offload.check_moves(pipe, case, placement)
    vae.check_decodes(case, decodes=shown.decodes, tiled=shown.tiles)
    solvers.check_steps(pipe, case, expert_schedule(pipe, pipe.scheduler.timesteps.tolist()))
    if shown.blocks:
        caches.check(pipe, case, shown.blocks)
        shown.forwards = guidance.check(pipe, case, shown.blocks)
    compilation.check(pipe, case, before=shown.graphs or 0, after=compilation.graphs())


def _swaps(pipe: WanPipe, resident: torch.nn.Module | None) -> int:
    """How often an expert has to come in a generation that found one of them, or none, on the device."""
    order = [resident]
    for expert in expert_schedule(pipe, pipe.scheduler.timesteps.tolist()):
        order.append(pipe.transformer_2 if expert is Expert.LOW else pipe.transformer)
    return sum(after is not before for before, after in itertools.pairwise(order))


def dtypes(pipe: WanPipe) -> dict[str, str]:
    """Component to the number format most of its weights have."""
    return {name: str(module.dtype).removeprefix("torch.") for name, module in modules(pipe).items()}
