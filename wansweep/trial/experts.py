"""The denoisers of a pipeline: one, or the two A14B experts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import WanTransformer3DModel

from wansweep.trial.pipeline import WanPipe


def experts(pipe: WanPipe) -> dict[str, WanTransformer3DModel]:
    """Component name to transformer, for those that are there."""
    found = {"transformer": pipe.transformer, "transformer_2": pipe.transformer_2}
    return {name: expert for name, expert in found.items() if expert is not None}


def block_linears(expert: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Name and module of every linear layer inside the blocks, whatever a quantiser has made of it.

    What is outside (embeddings of patch, time and text, the output projection) is a sliver of the weights, and diffusers keeps it.
    """
    for name, part in expert.named_modules():
        if name.startswith("blocks.") and hasattr(part, "in_features") and hasattr(part, "weight"):
            yield name, part
