"""The solver: which of diffusers' schedulers turns predictions into latents, all on Wan's shifted flow schedule.

What differs between them by diffusers' own doing (0.42.1 schedulers/): UniPC and DPM-Solver++ tell the model whole timesteps, Euler fractions;
DPM-Solver++ starts at a noise level of 0.999 before the shift, the others at 1; Euler rounds the latents to the transformer's number format
after each step, the others keep fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from wansweep.case import Case
from wansweep.levers import Solver
from wansweep.plan.flops import step_experts
from wansweep.record import Expert
from wansweep.trial.invalid import Invalid, hold
from wansweep.trial.networks import WanPipe


class WanEulerScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler on the noise levels that UniPC has.

    By itself diffusers' Euler takes its lowest level after the shift and shifts it again: at shift 12 the last of 40 steps would begin at
    0.13 and not at 0.24, and 25 steps instead of 26 would have high noise.
    """

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Evenly spaced levels from 1, shifted once."""
        levels = np.linspace(1, 1 / self.config.num_train_timesteps, num_inference_steps + 1)[:-1]
        super().set_timesteps(sigmas=levels.tolist(), device=device)


_KINDS: dict[Solver, type[Any]] = {
    Solver.UNIPC: UniPCMultistepScheduler,
    Solver.DPMPP: DPMSolverMultistepScheduler,
    Solver.EULER: WanEulerScheduler,
}


def apply(pipe: WanPipe, case: Case) -> None:
    """Put the declared solver with the declared shift in the place of the checkpoint's.

    The A14B checkpoints say flow_shift 3.0 where the official value is 12.0 or 5.0, so the case's shift is always set.
    """
    kind, config = _KINDS[case.solver], pipe.scheduler.config
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": case.shift}
    match case.solver:
        case Solver.UNIPC:
            pipe.scheduler = kind.from_config(config, flow_shift=case.shift)
        case Solver.DPMPP:
            pipe.scheduler = kind.from_config(config, **flow, algorithm_type="dpmsolver++", solver_type="midpoint")
        case Solver.EULER:
            pipe.scheduler = kind(num_train_timesteps=config.num_train_timesteps, shift=case.shift)


def shift(pipe: WanPipe) -> float:
    """The flow shift that the scheduler has."""
    config = pipe.scheduler.config
    return float(config.flow_shift if "flow_shift" in config else config.shift)


def resolved(pipe: WanPipe) -> str:
    """The scheduler's class by diffusers' name."""
    return next(kind.__name__ for kind in type(pipe.scheduler).__mro__ if kind.__module__.startswith("diffusers."))


def check(pipe: WanPipe, case: Case, boundary: float | None) -> None:
    """Hold what was declared of the schedule against the pipeline, before anything runs.

    Raises:
        Invalid: Another scheduler, shift or boundary between the experts is in force.
    """
    kind = type(pipe.scheduler)
    found = next((str(solver) for solver, known in _KINDS.items() if kind is known), kind.__name__)
    hold("solver", declared=str(case.solver), resolved=found)
    hold("shift", declared=case.shift, resolved=shift(pipe))
    ratio = pipe.config.boundary_ratio
    if ratio != boundary:
        raise Invalid(f"declared models.{case.model}.boundary={boundary}, resolved {ratio} in the checkpoint; set it to what you mean")


def check_steps(pipe: WanPipe, case: Case, ran: Sequence[Expert | None]) -> None:
    """After a generation: hold the expert of each step that ran against what the declared solver, steps and shift give.

    Raises:
        Invalid: The schedule was another.
    """
    declared = step_experts(steps=case.steps, shift=case.shift, boundary=pipe.config.boundary_ratio, solver=case.solver)
    if declared != tuple(ran):
        asked = f"solver={case.solver}, steps={case.steps}, shift={case.shift:g} ({_told(declared)})"
        raise Invalid(f"declared {asked}, resolved {_told(ran)}")


def _told(experts: Sequence[Expert | None]) -> str:
    high = f", {experts.count(Expert.HIGH)} of them with high noise" if Expert.HIGH in experts or Expert.LOW in experts else ""
    return f"{len(experts)} steps{high}"
