"""Miniature Wan2.2 checkpoints, built on the spot: the families' real classes and structure with a few million random weights.

Heads, experts, patches, VAE strides and channels are those of the real models, so whatever divides, swaps or refuses there does so here;
only widths and depths are small. The tokenizer is byte-level (ByT5), which needs no file. Saved in diffusers' layout and loaded like any
other checkpoint.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

from wansweep.case import Model
from wansweep.plan.geometry import GRIDS

# Part of the cache's path: change it with anything below, so that an old miniature is never taken for a new one.
VERSION = "1"
TEXT_DIM = 32
HEAD_DIM = 8  # three rotary axes need at least 6; flash kernels want a multiple of 8
LAYERS = 2


def cache_dir() -> Path:
    """Where miniatures are kept: ``wansweep/`` in the user's cache folder (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wansweep"


def tiny_checkpoint(model: Model, *, boundary: float | None) -> Path:
    """The folder of the model's miniature, built and saved first when it is not there.

    Args:
        model: Wan2.2 family.
        boundary: Share of the schedule above which the high-noise expert runs; null for a model with one expert.
    """
    folder = cache_dir() / f"tiny-{VERSION}" / f"{model}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{model}-", dir=folder.parent))
    try:
        _build(model, boundary).save_pretrained(scratch)
        scratch.rename(folder)
    except OSError:
        # Another trial was quicker: its miniature is the same.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _build(model: Model, boundary: float | None) -> WanPipeline | WanImageToVideoPipeline:
    """The miniature pipeline; random weights from fixed seeds, so equal on every machine with this torch."""
    channels = GRIDS[model].latent_channels
    shared = {"tokenizer": ByT5Tokenizer(), "text_encoder": _text_encoder(), "scheduler": _scheduler(), "boundary_ratio": boundary}
    match model:
        case Model.TI2V_5B:
            transformer = _transformer(model, channels, seed=1)
            return WanPipeline(**shared, vae=_vae_22(channels), transformer=transformer, transformer_2=None, expand_timesteps=True)
        case Model.T2V_A14B:
            high, low = (_transformer(model, channels, seed=seed) for seed in (1, 2))
            return WanPipeline(**shared, vae=_vae_21(channels), transformer=high, transformer_2=low)
        case Model.I2V_A14B:
            # In: noise, 4 mask channels, and the encoded image.
            high, low = (_transformer(model, 2 * channels + 4, seed=seed) for seed in (1, 2))
            vae = _vae_21(channels)
            return WanImageToVideoPipeline(**shared, vae=vae, transformer=high, transformer_2=low, image_encoder=None, image_processor=None)


def _text_encoder() -> UMT5EncoderModel:
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=384, d_model=TEXT_DIM, d_kv=16, d_ff=64, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu")
    return UMT5EncoderModel(config).eval()


def _scheduler() -> UniPCMultistepScheduler:
    # flow_shift as the diffusers conversions have it; the case's own is set when the checkpoint is loaded.
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0)


def _transformer(model: Model, in_channels: int, *, seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    heads = GRIDS[model].heads
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        in_channels=in_channels,
        out_channels=GRIDS[model].latent_channels,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=2 * heads * HEAD_DIM,
        num_layers=LAYERS,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    ).eval()


def _vae_21(channels: int) -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    ).eval()


def _vae_22(channels: int) -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
    ).eval()
