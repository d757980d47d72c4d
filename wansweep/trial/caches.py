"""Caches between steps: what diffusers has that does something on Wan, counted so that one that skips nothing cannot pass for a result.

What needs care on Wan2.2 (diffusers 0.42.1):

- TaylorSeer's default identifiers miss Wan's attn1 and attn2, and it then hooks nothing and says nothing.
- PyramidAttentionBroadcast keeps one state for the conditional and the unconditional forward, which Wan runs one after the other:
  the second would be given the first one's attention. Each branch gets a state of its own here.
- MagCache counts the steps of a whole schedule, and each A14B expert sees a part of it (diffusers #14025); each gets its own count and
  its own ratios, which a calibrating generation measures before the measured one.
- FasterCache expects batched CFG and fails on Wan; TextKVCache hooks none of its blocks. They are not offered.

Papers: FirstBlockCache after TeaCache (arXiv 2411.19108), TaylorSeer (2503.06923), PAB (2408.12588), MagCache (2506.09045).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.hooks.hooks import StateManager
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastHook, PyramidAttentionBroadcastState

from wansweep.case import Case
from wansweep.levers import Cache
from wansweep.record import Expert, Share
from wansweep.trial.experts import experts
from wansweep.trial.formats import TORCH_DTYPES
from wansweep.trial.generate import expert_schedule
from wansweep.trial.invalid import Invalid, refusals
from wansweep.trial.pipeline import WanPipe

_TAYLOR_IDENTIFIERS = [r"blocks\.\d+\.(attn1|attn2|ffn)"]
_CONFIGS = {
    FirstBlockCacheConfig: Cache.FIRST_BLOCK,
    TaylorSeerCacheConfig: Cache.TAYLORSEER,
    PyramidAttentionBroadcastConfig: Cache.PAB,
    MagCacheConfig: Cache.MAG,
}


def apply(pipe: WanPipe, case: Case, generate: Callable[[], object]) -> None:
    """Put the declared cache on both experts.

    Args:
        pipe: Placed and ready to compute.
        case: Declares the cache.
        generate: Makes the video once; called by mag, to calibrate.

    Raises:
        Invalid: diffusers refuses it.
    """
    with refusals(f"cache={case.cache}"):
        match case.cache:
            case Cache.NONE:
                return
            case Cache.FIRST_BLOCK:
                _enable(pipe, lambda _: FirstBlockCacheConfig(**_given(threshold=case.cache_threshold)))
            case Cache.TAYLORSEER:
                kind = {"cache_identifiers": _TAYLOR_IDENTIFIERS, "taylor_factors_dtype": TORCH_DTYPES[case.dtype]}
                _enable(pipe, lambda _: TaylorSeerCacheConfig(**kind, **_given(cache_interval=case.cache_interval)))
            case Cache.PAB:
                # Read as a number of the host: a CUDA timestep would wait for the device in every attention.
                kind = {
                    "spatial_attention_block_skip_range": case.cache_interval or 2,
                    "current_timestep_callback": lambda: pipe.current_timestep,
                }
                _enable(pipe, lambda _: PyramidAttentionBroadcastConfig(**kind))
                _separate_branches(pipe)
            case Cache.MAG:
                _enable_mag(pipe, case, generate)


def _given(**values: float | None) -> dict[str, float]:
    """The values that are set; diffusers has defaults for the others."""
    return {name: value for name, value in values.items() if value is not None}


def _enable(pipe: WanPipe, config: Callable[[str], Any]) -> None:
    for name, expert in experts(pipe).items():
        expert.enable_cache(config(name))


class _BranchState(StateManager):  # type: ignore[misc]
    """PAB's state, one a CFG branch: diffusers tells a StateManager which branch runs, and PAB reads these attributes."""

    def __init__(self) -> None:
        super().__init__(PyramidAttentionBroadcastState)

    @property
    def iteration(self) -> int:
        return int(self.get_state().iteration)

    @iteration.setter
    def iteration(self, value: int) -> None:
        self.get_state().iteration = value

    @property
    def cache(self) -> torch.Tensor | None:
        kept: torch.Tensor | None = self.get_state().cache
        return kept

    @cache.setter
    def cache(self, value: torch.Tensor) -> None:
        self.get_state().cache = value


def _separate_branches(pipe: WanPipe) -> None:
    for expert in experts(pipe).values():
        for part in expert.modules():
            for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}).values():
                if isinstance(hook, PyramidAttentionBroadcastHook):
                    hook.state = _BranchState()


def _enable_mag(pipe: WanPipe, case: Case, generate: Callable[[], object]) -> None:
    """MagCache with ratios of this prompt and schedule, an expert at a time.

    While calibrating an expert is told of one step more than it has, since diffusers prints and forgets the ratios at the last.
    """
    steps = _steps(pipe, case)
    for name, expert in experts(pipe).items():
        expert.enable_cache(MagCacheConfig(calibrate=True, num_inference_steps=steps[name] + 1))
    generate()
    for name, expert in experts(pipe).items():
        head = expert.blocks[0]._diffusers_hook.get_hook("mag_cache_leader_block_hook")
        states = head.state_manager._state_cache
        ratios = list(states["cond"].calibration_ratios) if "cond" in states else []
        expert.disable_cache()
        if ratios:
            threshold = _given(threshold=case.cache_threshold)
            expert.enable_cache(MagCacheConfig(mag_ratios=ratios, num_inference_steps=steps[name], **threshold))


def _steps(pipe: WanPipe, case: Case) -> Counter[str]:
    """Component to the steps that it runs."""
    pipe.scheduler.set_timesteps(case.steps)
    schedule = expert_schedule(pipe, pipe.scheduler.timesteps.tolist())
    return Counter("transformer_2" if expert is Expert.LOW else "transformer" for expert in schedule)


def reset(pipe: WanPipe) -> None:
    """Forget what a generation left, so that the next does not start from it."""
    for expert in experts(pipe).values():
        if expert.is_cache_enabled:
            expert._reset_stateful_cache()


@contextmanager
def counted(pipe: WanPipe) -> Iterator[dict[str, Share]]:
    """Expert to how often its last block computed its self-attention, of how often the expert was called; filled when the ``with`` ends.

    Counted at the projection inside the attention: PAB and TaylorSeer skip an attention while its block still runs.
    """
    computed: Counter[str] = Counter()
    called: Counter[str] = Counter()
    shares: dict[str, Share] = {}
    handles = []
    for name, expert in experts(pipe).items():
        attention = expert.blocks[-1].attn1
        projection = attention.to_qkv if attention.fused_projections else attention.to_q
        handles += [_count(projection, computed, name), _count(expert.proj_out, called, name)]
    try:
        yield shares
    finally:
        for handle in handles:
            handle.remove()
        shares.update({name: Share(count=computed[name], of=called[name]) for name in experts(pipe)})


def _count(module: torch.nn.Module, counter: Counter[str], name: str) -> torch.utils.hooks.RemovableHandle:
    def add(*_: object) -> None:
        counter[name] += 1

    return module.register_forward_pre_hook(add)


def in_force(pipe: WanPipe) -> dict[str, Cache]:
    """Expert to the cache on it."""
    return {name: _CONFIGS.get(type(expert._cache_config), Cache.NONE) for name, expert in experts(pipe).items()}


def check(pipe: WanPipe, case: Case, shares: dict[str, Share]) -> None:
    """Hold the declared cache against both experts, and against what was computed.

    An expert that ran one step a branch had nothing to skip.

    Raises:
        Invalid: An expert that ran has another cache, or none skipped anything, or one skipped where none was declared.
    """
    for name, cache in in_force(pipe).items():
        if cache is not case.cache and shares[name].of:
            raise Invalid(f"declared cache={case.cache}, resolved {cache} on {name}")
    skipped = sum(share.of - share.count for share in shares.values())
    if (skipped > 0) != (case.cache is not Cache.NONE):
        told = ", ".join(f"{share.count} of {share.of} in {name}" for name, share in shares.items())
        raise Invalid(f"declared cache={case.cache}, resolved {'none' if skipped == 0 else 'some'} skipped: the last block computed {told}")


def resolved(pipe: WanPipe, case: Case) -> str:
    """The cache in force with what was set of it."""
    found = set(in_force(pipe).values()) - {Cache.NONE}
    name = " and ".join(sorted(found)) or str(Cache.NONE)
    given = _given(threshold=case.cache_threshold, interval=case.cache_interval)
    return " ".join([name, *(f"{key} {value:g}" for key, value in given.items())])
