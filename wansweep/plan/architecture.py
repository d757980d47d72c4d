"""The numbers of each family's networks, as the diffusers and transformers configs have them.

A miniature checkpoint is the same `Architecture` with other numbers; whatever is computed from one takes it as an argument.
Sources: config.json of the diffusers checkpoints Wan-AI/Wan2.2-*-Diffusers; the boundary from Wan2.2 wan/configs/*.py.
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
    """

    dim: int
    ffn_dim: int
    layers: int
    heads: int
    head_dim: int
    tokens: int


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
