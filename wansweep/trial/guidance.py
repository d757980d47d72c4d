"""Classifier-free guidance: whether each step ran the unconditional forward too, counted."""

from __future__ import annotations

from collections.abc import Mapping

from wansweep.case import Case
from wansweep.plan.flops import forwards
from wansweep.record import Share
from wansweep.trial.invalid import Invalid
from wansweep.trial.networks import WanPipe


def check(pipe: WanPipe, case: Case, calls: Mapping[str, Share]) -> int:
    """Hold the declared guidance against how often the experts were called; returns the forwards of a step on this rank.

    Args:
        pipe: After a generation.
        case: Declares guidance; ``cfg_parallel`` leaves each rank one of the two forwards.
        calls: Expert to how often its last block computed, of how often the expert was called.

    Raises:
        Invalid: There were more forwards, or fewer.
    """
    steps, ran = len(pipe.scheduler.timesteps), sum(share.of for share in calls.values())
    declared = forwards(case) // case.cfg_parallel or 1
    if ran != steps * declared:
        told = f"guidance={case.guidance:g}, {declared} forward(s) a step on this rank"
        raise Invalid(f"declared {told}, resolved {ran} forwards in {steps} steps")
    return declared
