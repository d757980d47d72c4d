"""How many floating-point operations a case takes, as a closed formula: one multiply and one add are 2 FLOP.

Counted is what torch's FlopCounterMode counts (matrix products and convolutions), and its counts are met exactly: norms, activations and the
scheduler are left out. The VAE's formula walks its layers: the causal convolutions work through the video one latent frame at a time, all
frames after the first at one price, so a video's FLOP grow linearly with its latent frames. Untiled; tiles overlap and cost more.
The figures are those of all the case's videos, whatever the ranks: work that every rank repeats (T5, VAE) is counted once. Prompt and image are
encoded once for a batch.

Layers: diffusers 0.42 models/transformers/transformer_wan.py, models/autoencoders/autoencoder_kl_wan.py; transformers models/umt5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from wansweep.case import Case, Task
from wansweep.levers import Solver
from wansweep.plan.architecture import ARCHITECTURES, Architecture, TextEncoder, Transformer, Vae
from wansweep.plan.geometry import LatentShape, latent_shape
from wansweep.record import Expert

_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFlop:
    """FLOP of a case by stage, in the order of a run.

    Attributes:
        text_encode_flop: T5_Encoding: the prompt, and with CFG the negative prompt.
        preprocess_flop: Preprocess: the VAE encode of the image or of the padded clip; 0 for T2V.
        steps_flop: Inference of each step.
        vae_decode_flop: VAE_Decoding.
    """

    text_encode_flop: int
    preprocess_flop: int
    steps_flop: tuple[int, ...]
    vae_decode_flop: int

    @property
    def denoise_flop(self) -> int:
        """All steps together."""
        return sum(self.steps_flop)

    @property
    def total_flop(self) -> int:
        """The whole case."""
        return self.text_encode_flop + self.preprocess_flop + self.denoise_flop + self.vae_decode_flop


def case_flop(case: Case, architecture: Architecture | None = None) -> CaseFlop:
    """FLOP of each stage of a case.

    Args:
        case: As it runs; a case with tiny weights goes through `geometry.as_run` first.
        architecture: Of the checkpoint that runs, where it is not the family's own.

    Raises:
        CaseError: The model cannot do the case's shape.
    """
    networks = architecture or ARCHITECTURES[case.model]
    shape = latent_shape(case)
    forward_flop = case.batch * transformer_flop(networks.transformer, shape, text_tokens=networks.text_encoder.tokens)
    return CaseFlop(
        text_encode_flop=text_encoder_flop(networks.text_encoder) * forwards(case),
        preprocess_flop=_preprocess_flop(case, networks, shape),
        steps_flop=tuple(forward_flop * forwards(case) for _ in range(case.steps)),
        vae_decode_flop=case.batch * vae_decode_flop(networks.vae, frames=shape.frames, height=shape.height, width=shape.width),
    )


def forwards(case: Case) -> int:
    """Forwards of the transformer in a step: 2 with CFG, else 1. `guidance` decides for both experts, as diffusers 0.42 does it."""
    return 2 if case.guidance > 1 else 1


def step_experts(*, steps: int, shift: float, boundary: float | None, solver: Solver = Solver.UNIPC) -> tuple[Expert | None, ...]:
    """Which expert runs each step; None for each where the model has one."""
    if boundary is None:
        return (None,) * steps
    times = solver_timesteps(steps=steps, shift=shift, solver=solver)
    return tuple(Expert.HIGH if time >= boundary * _TRAIN_TIMESTEPS else Expert.LOW for time in times)


def solver_timesteps(*, steps: int, shift: float, solver: Solver = Solver.UNIPC) -> tuple[float, ...]:
    """The timesteps that a solver tells the model: evenly spaced noise levels, shifted.

    As set_timesteps of diffusers' schedulers with flow sigmas has them (scheduling_unipc_multistep.py, scheduling_dpmsolver_multistep.py,
    and `trial.solvers` for Euler): UniPC and DPM-Solver++ cut them to whole timesteps, and DPM-Solver++'s begin a thousandth lower.
    """
    lowest = 1 / _TRAIN_TIMESTEPS
    # In numpy's order of operations, since a last bit decides where levels are cut.
    falling = [1 + step * ((lowest - 1) / steps) for step in range(steps)]
    evenly = [1 - level for level in (lowest, *reversed(falling[1:]))] if solver is Solver.DPMPP else falling
    levels = [shift * level / (1 + (shift - 1) * level) for level in evenly]
    if solver is Solver.EULER:
        return tuple(level * _TRAIN_TIMESTEPS for level in levels)
    # UniPC takes a millionth off a level of 1, whose logarithm it needs.
    return tuple(float(int(min(level, 1 - 1e-6) * _TRAIN_TIMESTEPS)) for level in levels)


def transformer_flop(transformer: Transformer, shape: LatentShape, *, text_tokens: int) -> int:
    """FLOP of one forward of the transformer on one video's latent.

    Args:
        transformer: The denoiser or one expert.
        shape: Of the latent; its channels do not matter, the transformer has its own.
        text_tokens: Length of the text embedding.
    """
    dim, patch_pixels = transformer.dim, transformer.patch**2
    tokens = shape.frames * (shape.height // transformer.patch) * (shape.width // transformer.patch)
    timesteps = tokens if transformer.token_timesteps else 1
    # Self-attention projects q, k, v and its output; cross-attention q and its output here, k and v once for each text token.
    projections = 2 * tokens * (4 + 2) * dim**2 + 2 * text_tokens * 2 * dim**2
    attention = 2 * 2 * tokens * (tokens + text_tokens) * dim
    feed_forward = 2 * tokens * 2 * dim * transformer.ffn_dim
    patches = 2 * tokens * patch_pixels * dim * (transformer.in_channels + transformer.out_channels)
    text_embedding = 2 * text_tokens * (transformer.text_dim * dim + dim**2)
    time_embedding = 2 * timesteps * (transformer.freq_dim * dim + dim**2 + 6 * dim**2)
    return transformer.layers * (projections + attention + feed_forward) + patches + text_embedding + time_embedding


def text_encoder_flop(encoder: TextEncoder) -> int:
    """FLOP of encoding one prompt, padded to the encoder's length."""
    inner = encoder.heads * encoder.head_dim
    projections = 2 * encoder.tokens * 4 * encoder.dim * inner
    attention = 2 * 2 * encoder.tokens**2 * inner
    gated_feed_forward = 2 * encoder.tokens * 3 * encoder.dim * encoder.ffn_dim
    return encoder.layers * (projections + attention + gated_feed_forward)


def vae_decode_flop(vae: Vae, *, frames: int, height: int, width: int) -> int:
    """FLOP of decoding a latent of so many latent frames, height and width."""
    pixels = height * width
    latent_conv = frames * _conv(vae.latent_channels, vae.latent_channels, kernel=1, at=pixels)
    return latent_conv + _decode_frame(vae, pixels, first=True) + (frames - 1) * _decode_frame(vae, pixels, first=False)


def vae_encode_flop(vae: Vae, *, frames: int, height: int, width: int) -> int:
    """FLOP of encoding a video INTO a latent of so many latent frames, height and width."""
    pixels = height * width
    latent_conv = frames * _conv(2 * vae.latent_channels, 2 * vae.latent_channels, kernel=1, at=pixels)
    return latent_conv + _encode_frame(vae, pixels, first=True) + (frames - 1) * _encode_frame(vae, pixels, first=False)


def _preprocess_flop(case: Case, networks: Architecture, shape: LatentShape) -> int:
    """FLOP before the first step: TI2V-5B encodes the one image, I2V-A14B the image followed by grey up to the full length."""
    if case.task is Task.T2V:
        return 0
    frames = 1 if networks.transformer.token_timesteps else shape.frames
    return vae_encode_flop(networks.vae, frames=frames, height=shape.height, width=shape.width)


def _decode_frame(vae: Vae, pixels: int, *, first: bool) -> int:
    """FLOP of the decoder for one latent frame of so many latent pixels.

    The first becomes one frame of video, as no upsampling doubles it; each later one becomes `temporal_stride` frames.
    """
    widths = [vae.decoder_dim * width for width in (vae.widths[-1], *reversed(vae.widths))]
    doubles = [*reversed(vae.temporal), False]
    flop = _conv(vae.latent_channels, widths[0], kernel=27, at=pixels) + _middle(widths[0], pixels)
    frames = 1
    for level, (entering, leaving) in enumerate(pairwise(widths)):
        halved = level > 0 and not vae.residual
        flop += _resnets(entering // 2 if halved else entering, leaving, count=vae.res_blocks + 1, at=frames * pixels)
        if doubles[level] and not first:
            flop += _conv(leaving, 2 * leaving, kernel=3, at=frames * pixels)
            frames *= 2
        if level < len(vae.temporal):
            pixels *= 4
            flop += _conv(leaving, leaving if vae.residual else leaving // 2, kernel=9, at=frames * pixels)
    return flop + _conv(widths[-1], vae.pixel_channels, kernel=27, at=frames * pixels)


def _encode_frame(vae: Vae, latent_pixels: int, *, first: bool) -> int:
    """FLOP of the encoder for one latent frame of so many latent pixels: from one frame of video, or `temporal_stride` later ones."""
    widths = [vae.encoder_dim * width for width in (1, *vae.widths)]
    halves = [*vae.temporal, False]
    pixels = latent_pixels * (vae.spatial_stride // vae.patch) ** 2
    frames = 1 if first else vae.temporal_stride
    flop = _conv(vae.pixel_channels, widths[0], kernel=27, at=frames * pixels)
    for level, (entering, leaving) in enumerate(pairwise(widths)):
        flop += _resnets(entering, leaving, count=vae.res_blocks, at=frames * pixels)
        if level < len(vae.temporal):
            pixels //= 4
            flop += _conv(leaving, leaving, kernel=9, at=frames * pixels)
        if halves[level] and not first:
            frames //= 2
            flop += _conv(leaving, leaving, kernel=3, at=frames * pixels)
    return flop + _middle(widths[-1], pixels) + _conv(widths[-1], 2 * vae.latent_channels, kernel=27, at=pixels)


def _middle(width: int, pixels: int) -> int:
    """FLOP of the middle block on one latent frame: a residual block, attention within the frame, a residual block."""
    attention = _conv(width, 3 * width, kernel=1, at=pixels) + 2 * 2 * pixels**2 * width + _conv(width, width, kernel=1, at=pixels)
    return _resnets(width, width, count=2, at=pixels) + attention


def _resnets(entering: int, leaving: int, *, count: int, at: int) -> int:
    """FLOP of residual blocks in a row, the first of which changes the width (and has a shortcut convolution if it does)."""
    shortcut = _conv(entering, leaving, kernel=1, at=at) if entering != leaving else 0
    first = _conv(entering, leaving, kernel=27, at=at) + _conv(leaving, leaving, kernel=27, at=at) + shortcut
    return first + (count - 1) * 2 * _conv(leaving, leaving, kernel=27, at=at)


def _conv(entering: int, leaving: int, *, kernel: int, at: int) -> int:
    """FLOP of a convolution with so many taps, at so many output positions."""
    return 2 * at * kernel * entering * leaving
