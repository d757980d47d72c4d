"""The forwards of classifier-free guidance: both on this rank, or one on each half of the gang (CFG-parallel, which diffusers has not for Wan).

With halves, each rank runs one forward and the two predictions are exchanged with the rank of the other half that stands in the same place,
so every rank combines both and steps its own scheduler: latents stay equal on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from diffusers import WanTransformer3DModel
from torch.distributed.device_mesh import DeviceMesh

from wansweep.case import Case
from wansweep.plan.flops import forwards
from wansweep.record import Share
from wansweep.trial.invalid import Invalid
from wansweep.trial.networks import WanPipe

# In the order of the halves.
BRANCHES = ("cond", "uncond")


class Guidance:
    """Predicts the noise of a step, with guidance where there is a negative prompt.

    Args:
        mesh: The gang's, with a dimension ``cfg``; null for a gang of one.

    Attributes:
        steps: Predictions made.
        forwards: Forwards that this rank ran for them.
        guided: Those of the steps that had two branches.
    """

    def __init__(self, mesh: DeviceMesh | None = None) -> None:
        self.steps = 0
        self.forwards = 0
        self.guided = 0
        self._pair = mesh["cfg"] if mesh is not None and mesh["cfg"].size() > 1 else None

    def __call__(
        self,
        model: WanTransformer3DModel,
        prompt_BTD: torch.Tensor,
        negative_BTD: torch.Tensor | None,
        *,
        scale: float,
        call: Mapping[str, Any],
        where: Mapping[str, Any],
    ) -> torch.Tensor:
        """The noise that is to be taken away.

        Args:
            model: Expert of the step.
            prompt_BTD: Embedded prompt.
            negative_BTD: Embedded negative prompt; null without CFG, which is one forward.
            scale: Of CFG, in this expert.
            call: What both forwards are given.
            where: Where in the schedule this is, for caches.
        """
        self.steps += 1
        if negative_BTD is None:
            return self._forward(model, "cond", prompt_BTD, call, where)
        self.guided += 1
        cond_BCFHW, uncond_BCFHW = self._both(model, prompt_BTD, negative_BTD, call, where)
        return uncond_BCFHW + scale * (cond_BCFHW - uncond_BCFHW)

    def _both(
        self,
        model: WanTransformer3DModel,
        prompt_BTD: torch.Tensor,
        negative_BTD: torch.Tensor,
        call: Mapping[str, Any],
        where: Mapping[str, Any],
    ) -> tuple[torch.Tensor, ...]:
        """The predictions with the prompt and with the negative one."""
        texts = (prompt_BTD, negative_BTD)
        if self._pair is None:
            return tuple(self._forward(model, branch, text, call, where) for branch, text in zip(BRANCHES, texts, strict=True))
        half = self._pair.get_local_rank()
        own_BCFHW = self._forward(model, BRANCHES[half], texts[half], call, where)
        both = [torch.empty_like(own_BCFHW, memory_format=torch.contiguous_format) for _ in BRANCHES]
        dist.all_gather(both, own_BCFHW.contiguous(), group=self._pair.get_group())
        return tuple(both)

    def _forward(
        self, model: WanTransformer3DModel, branch: str, text_BTD: torch.Tensor, call: Mapping[str, Any], where: Mapping[str, Any]
    ) -> torch.Tensor:
        self.forwards += 1
        with model.cache_context(branch, **where):
            noise: torch.Tensor = model(encoder_hidden_states=text_BTD, **call)[0]
        return noise

    @property
    def degree(self) -> int:
        """Halves that really shared the forwards: those that the steps took, over those that this rank ran; 1 before any step."""
        return (self.steps + self.guided) // self.forwards if self.forwards else 1


def check(pipe: WanPipe, case: Case, calls: Mapping[str, Share]) -> int:
    """Hold the declared guidance against how often the experts were called; returns the forwards of a step on this rank.

    Args:
        pipe: After a generation.
        case: Declares guidance.
        calls: Expert to how often its last block computed, of how often the expert was called.

    Raises:
        Invalid: There were more forwards, or fewer.
    """
    steps, ran = len(pipe.scheduler.timesteps), sum(share.of for share in calls.values())
    # Whether the halves of a gang share the forwards is `parallel.check`'s to say, who knows the degree.
    if case.cfg_parallel == 1 and ran != steps * forwards(case):
        told = f"guidance={case.guidance:g}, {forwards(case)} forward(s) a step"
        raise Invalid(f"declared {told}, resolved {ran} forwards in {steps} steps")
    return ran // steps
