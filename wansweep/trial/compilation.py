"""torch.compile on the experts, with the time it takes in a stage of its own.

Compiling waits for the first forward, so one forward an expert is run with the shapes of the run before the first step; a graph that is
made after that would be in a step's time, and ends the case as invalid.
"""

from __future__ import annotations

import torch
from torch._dynamo.utils import counters

from wansweep.case import Case
from wansweep.levers import Attention, Compile
from wansweep.trial.experts import experts
from wansweep.trial.generate import TEXT_TOKENS, model_input, prepare
from wansweep.trial.invalid import Invalid, refusals
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.placement import Placement


@torch.no_grad()
def apply(pipe: WanPipe, case: Case, placement: Placement) -> None:
    """Compile both experts as declared, by one forward each; also what compiles itself, as flex attention does.

    Raises:
        Invalid: torch.compile refuses the backend or the model here.
    """
    torch.compiler.reset()
    counters.clear()
    with refusals(f"compile={case.compile} with {case.compile_backend}"):
        for expert in experts(pipe).values():
            match case.compile:
                case Compile.NONE:
                    pass
                case Compile.REGIONAL:
                    expert.compile_repeated_blocks(backend=case.compile_backend)
                case Compile.FULL:
                    expert.compile(backend=case.compile_backend)
        _forward_once(pipe, case, placement)


def needed(case: Case) -> bool:
    """Whether the case compiles anything."""
    return case.compile is not Compile.NONE or case.attention is Attention.FLEX


def _forward_once(pipe: WanPipe, case: Case, placement: Placement) -> None:
    """One forward of each expert on inputs made as the run makes them."""
    pipe.scheduler.set_timesteps(case.steps, device=placement.device)
    start = prepare(pipe, case, placement.device)
    placement.park_vae(pipe)
    for expert in experts(pipe).values():
        dtype = pipe.transformer.dtype
        text_BTD = torch.zeros(case.batch, TEXT_TOKENS, expert.config.text_dim, device=placement.device, dtype=dtype)
        x_BCFHW, timestep_BL = model_input(start, start.latents_BCFHW, pipe.scheduler.timesteps[0])
        placement.bring(expert)
        expert(hidden_states=x_BCFHW.to(dtype), timestep=timestep_BL, encoder_hidden_states=text_BTD, return_dict=False)


def graphs() -> int:
    """Graphs that torch.compile has made in this process since `apply`."""
    return int(counters["stats"]["unique_graphs"])


def scope(pipe: WanPipe) -> Compile:
    """What of both experts is compiled: all of each, every block of each, or less, which is nothing."""
    whole = [expert._compiled_call_impl is not None for expert in experts(pipe).values()]
    blocks = [block._compiled_call_impl is not None for expert in experts(pipe).values() for block in expert.blocks]
    if all(whole):
        return Compile.FULL
    return Compile.REGIONAL if all(blocks) else Compile.NONE


def check(pipe: WanPipe, case: Case, *, before: int, after: int) -> None:
    """Hold the declared compilation against both experts and the graphs that there are.

    Args:
        pipe: After the run.
        case: Declares it.
        before: Graphs before the first step.
        after: Graphs after the last.

    Raises:
        Invalid: Something else is compiled, no graph was made, or some were made during the run.
    """
    if case.compile is not scope(pipe):
        raise Invalid(f"declared compile={case.compile}, resolved {scope(pipe)}")
    if not needed(case):
        return
    if before == 0:
        raise Invalid(f"declared compile={case.compile}, attention={case.attention}, resolved no graph at all")
    if after != before:
        raise Invalid(
            f"declared compile={case.compile}, resolved {after - before} more graphs after the Compilation stage, in the steps' times"
        )


def resolved(pipe: WanPipe, case: Case) -> str:
    """What of both experts is compiled, and by what."""
    found = scope(pipe)
    return str(found) if found is Compile.NONE else f"{found} with {case.compile_backend}"
