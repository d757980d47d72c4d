"""The numbers of an `Architecture` to diffusers' and transformers' modules, wherever torch puts them. Loads torch and diffusers."""

from __future__ import annotations

from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from wansweep.plan.architecture import TextEncoder, Transformer, Vae


def transformer(numbers: Transformer) -> WanTransformer3DModel:
    """The denoiser, or one expert."""
    return WanTransformer3DModel(
        patch_size=(1, numbers.patch, numbers.patch),
        num_attention_heads=numbers.heads,
        attention_head_dim=numbers.head_dim,
        in_channels=numbers.in_channels,
        out_channels=numbers.out_channels,
        text_dim=numbers.text_dim,
        freq_dim=numbers.freq_dim,
        ffn_dim=numbers.ffn_dim,
        num_layers=numbers.layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=numbers.rope_length,
    )


def text_encoder(numbers: TextEncoder) -> UMT5EncoderModel:
    """The encoder of the prompts."""
    config = UMT5Config(
        vocab_size=numbers.vocabulary,
        d_model=numbers.dim,
        d_kv=numbers.head_dim,
        d_ff=numbers.ffn_dim,
        num_layers=numbers.layers,
        num_heads=numbers.heads,
        feed_forward_proj="gated-gelu",
    )
    return UMT5EncoderModel(config)


def vae(numbers: Vae) -> AutoencoderKLWan:
    """The autoencoder between pixels and latents."""
    return AutoencoderKLWan(
        base_dim=numbers.encoder_dim,
        decoder_base_dim=numbers.decoder_dim,
        z_dim=numbers.latent_channels,
        dim_mult=list(numbers.widths),
        num_res_blocks=numbers.res_blocks,
        temperal_downsample=list(numbers.temporal),
        latents_mean=list(numbers.latents_mean or (0.0,) * numbers.latent_channels),
        latents_std=list(numbers.latents_std or (1.0,) * numbers.latent_channels),
        is_residual=numbers.residual,
        in_channels=numbers.pixel_channels,
        out_channels=numbers.pixel_channels,
        patch_size=None if numbers.patch == 1 else numbers.patch,
        scale_factor_temporal=numbers.temporal_stride,
        scale_factor_spatial=numbers.spatial_stride,
    )
