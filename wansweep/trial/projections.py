"""Query, key and value of the experts' attention in one projection (diffusers WanTransformer3DModel.fuse_qkv_projections)."""

from __future__ import annotations

from diffusers.models.transformers.transformer_wan import WanAttention

from wansweep.case import Case
from wansweep.trial.experts import experts
from wansweep.trial.invalid import hold
from wansweep.trial.pipeline import WanPipe

_SEPARATE = ("to_q", "to_k", "to_v")


def apply(pipe: WanPipe, case: Case) -> None:
    """Fuse both experts' projections, and let the weights go that the fused ones were made from, which diffusers keeps."""
    if not case.fused_qkv:
        return
    for expert in experts(pipe).values():
        expert.fuse_qkv_projections()
        for part in expert.modules():
            if isinstance(part, WanAttention):
                for name in _SEPARATE[1 if part.is_cross_attention else 0 :]:
                    delattr(part, name)


def fused(pipe: WanPipe) -> bool:
    """Whether every attention module of both experts projects at once."""
    parts = [part for expert in experts(pipe).values() for part in expert.modules() if isinstance(part, WanAttention)]
    return all(part.fused_projections and hasattr(part, "to_kv" if part.is_cross_attention else "to_qkv") for part in parts)


def check(pipe: WanPipe, case: Case) -> None:
    """Hold the declared projections against both experts.

    Raises:
        Invalid: Some module of some expert differs.
    """
    hold("fused_qkv", declared=case.fused_qkv, resolved=fused(pipe))
