"""Miniature Wan2.2 checkpoints, built on the spot: the families' real classes and structure with a few million random weights.

Heads, experts, patches, VAE strides and channels are those of the real models, so whatever divides, swaps or refuses there does so here;
only widths and depths are small. The tokenizer is byte-level (ByT5), which needs no file. Saved in diffusers' layout and loaded like any
other checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wansweep.cache import cache_dir, made_once
from wansweep.case import Model, Task
from wansweep.plan.architecture import ARCHITECTURES, Architecture, TextEncoder
from wansweep.trial import networks

# Part of the cache's path: change it with anything below, so that an old miniature is never taken for a new one.
VERSION = "1"
TEXT_DIM = 32
HEAD_DIM = 8  # three rotary axes need at least 6; flash kernels want a multiple of 8
LAYERS = 2


def tiny_checkpoint(model: Model, *, boundary: float | None) -> Path:
    """The folder of the model's miniature, built and saved first when it is not there.

    Args:
        model: Wan2.2 family.
        boundary: Share of the schedule above which the high-noise expert runs; null for a model with one expert.
    """
    task = Task.I2V if model is Model.I2V_A14B else Task.T2V
    folder = cache_dir() / f"tiny-{VERSION}" / f"{model}"
    return made_once(folder, lambda scratch: networks.build(miniature(model), task, boundary=boundary).save_pretrained(scratch))


def miniature(model: Model) -> Architecture:
    """The family's numbers with small widths and depths; its random weights come from fixed seeds, equal on every machine with this torch."""
    real = ARCHITECTURES[model]
    heads, tokens = real.transformer.heads, real.text_encoder.tokens
    transformer = replace(
        real.transformer, head_dim=HEAD_DIM, layers=LAYERS, ffn_dim=2 * heads * HEAD_DIM, text_dim=TEXT_DIM, freq_dim=32, rope_length=64
    )
    text_encoder = TextEncoder(dim=TEXT_DIM, ffn_dim=64, layers=1, heads=2, head_dim=16, tokens=tokens, vocabulary=384)
    vae = replace(real.vae, encoder_dim=4, decoder_dim=4, widths=(1, 1, 1, 1), res_blocks=1, latents_mean=(), latents_std=())
    return replace(real, transformer=transformer, text_encoder=text_encoder, vae=vae)
