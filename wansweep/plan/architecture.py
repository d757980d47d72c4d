"""The numbers of each family's networks, as the diffusers and transformers configs have them.

A miniature checkpoint is the same `Architecture` with other numbers; whatever is computed from one takes it as an argument.
Sources: config.json of the diffusers checkpoints Wan-AI/Wan2.2-*-Diffusers; the boundary from Wan2.2 wan/configs/*.py; the statistics of the
latents from diffusers autoencoder_kl_wan.py (Wan2.1's VAE, its defaults) and Wan2.2 wan/modules/vae2_2.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from wansweep.case import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Transformer:
    """diffusers WanTransformer3DModel; an A14B family has two, the experts, of one shape.

    Attributes:
        heads: Attention heads.
        head_dim: Channels a head.
        layers: Blocks.
        ffn_dim: Inner width of the feed-forward.
        in_channels: Channels of its input; for I2V-A14B noise, mask and condition.
        out_channels: Channels of its output.
        patch: Latent pixels a token, on a side; one latent frame deep.
        text_dim: Width of the text embedding.
        freq_dim: Width of the sinusoidal time embedding.
        token_timesteps: Whether each token has its own timestep (the pipeline's expand_timesteps).
        rope_length: Longest side, in tokens, that rotary positions are tabled for (rope_max_seq_len).
    """

    heads: int
    head_dim: int
    layers: int
    ffn_dim: int
    in_channels: int
    out_channels: int
    patch: int
    text_dim: int
    freq_dim: int
    token_timesteps: bool
    rope_length: int = 1024

    @property
    def dim(self) -> int:
        """Width of the token stream."""
        return self.heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoder:
    """transformers UMT5EncoderModel with a gated feed-forward.

    Attributes:
        dim: Width of the token stream (d_model).
        ffn_dim: Inner width of the feed-forward (d_ff).
        layers: Blocks.
        heads: Attention heads.
        head_dim: Channels a head (d_kv).
        tokens: Length that prompts are padded to (max_sequence_length).
        vocabulary: Rows of the embedding (vocab_size).
    """

    dim: int
    ffn_dim: int
    layers: int
    heads: int
    head_dim: int
    tokens: int
    vocabulary: int = 256_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Vae:
    """diffusers AutoencoderKLWan.

    Attributes:
        encoder_dim: Base width of the encoder (base_dim).
        decoder_dim: Base width of the decoder (decoder_base_dim).
        latent_channels: Channels of the latent (z_dim).
        pixel_channels: Channels of the video after folding (in_channels = out_channels).
        patch: Pixels folded into channels, on a side.
        widths: Width of each level, in base widths (dim_mult).
        res_blocks: Residual blocks a level; the decoder has one more.
        temporal: Which of the downsamplings halve the frames too (temperal_downsample).
        residual: Whether upsampling keeps the width (is_residual, Wan2.2's own VAE); else it halves it.
        latents_mean: Of each latent channel, taken off before the transformer; empty for zeros.
        latents_std: Likewise; empty for ones.
    """

    encoder_dim: int
    decoder_dim: int
    latent_channels: int
    pixel_channels: int
    patch: int
    widths: tuple[int, ...]
    res_blocks: int
    temporal: tuple[bool, ...]
    residual: bool
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()

    @property
    def spatial_stride(self) -> int:
        """Pixels a latent pixel, on a side."""
        return self.patch << len(self.temporal)

    @property
    def temporal_stride(self) -> int:
        """Frames a latent frame, after the first."""
        return 1 << sum(self.temporal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The networks of a family.

    Attributes:
        transformer: The denoiser, or each of its two experts.
        text_encoder: Of the prompts.
        vae: Between pixels and latents.
        boundary: Timestep, as a share of the range, from which the high-noise expert works; null for one expert.
    """

    transformer: Transformer
    text_encoder: TextEncoder
    vae: Vae
    boundary: float | None

    @property
    def experts(self) -> int:
        """How many denoisers share the steps."""
        return 1 if self.boundary is None else 2


# fmt: off
_MEAN_21 = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
_STD_21 = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
_MEAN_22 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
_STD_22 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on
_UMT5_XXL = TextEncoder(dim=4096, ffn_dim=10240, layers=24, heads=64, head_dim=64, tokens=512)
_VAE_21 = Vae(
    encoder_dim=96,
    decoder_dim=96,
    latent_channels=16,
    pixel_channels=3,
    patch=1,
    widths=(1, 2, 4, 4),
    res_blocks=2,
    temporal=(False, True, True),
    residual=False,
    latents_mean=_MEAN_21,
    latents_std=_STD_21,
)
_VAE_22 = Vae(
    encoder_dim=160,
    decoder_dim=256,
    latent_channels=48,
    pixel_channels=12,
    patch=2,
    widths=(1, 2, 4, 4),
    res_blocks=2,
    temporal=(False, True, True),
    residual=True,
    latents_mean=_MEAN_22,
    latents_std=_STD_22,
)


def _a14b_expert(*, in_channels: int) -> Transformer:
    return Transformer(
        heads=40,
        head_dim=128,
        layers=40,
        ffn_dim=13824,
        in_channels=in_channels,
        out_channels=16,
        patch=2,
        text_dim=4096,
        freq_dim=256,
        token_timesteps=False,
    )


ARCHITECTURES = {
    Model.TI2V_5B: Architecture(
        transformer=Transformer(
            heads=24,
            head_dim=128,
            layers=30,
            ffn_dim=14336,
            in_channels=48,
            out_channels=48,
            patch=2,
            text_dim=4096,
            freq_dim=256,
            token_timesteps=True,
        ),
        text_encoder=_UMT5_XXL,
        vae=_VAE_22,
        boundary=None,
    ),
    Model.T2V_A14B: Architecture(transformer=_a14b_expert(in_channels=16), text_encoder=_UMT5_XXL, vae=_VAE_21, boundary=0.875),
    Model.I2V_A14B: Architecture(transformer=_a14b_expert(in_channels=36), text_encoder=_UMT5_XXL, vae=_VAE_21, boundary=0.9),
}
