"""Shapes: what a video's pixels become in latent space, and which sizes a model can do.

Numbers of each family: Wan2.2 wan/configs/*.py (vae_stride, patch_size) and the VAE configs of the diffusers checkpoints.
Legend: B batch, C channels, F latent frames, H latent height, W latent width, L tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from wansweep.case import Case, Model, Task
from wansweep.errors import CaseError
from wansweep.levers import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a family divides a video.

    Attributes:
        spatial: Pixels a latent pixel, on a side.
        temporal: Frames a latent frame, after the first.
        patch: Latent pixels a token, on a side.
        latent_channels: Channels of the latent.
        tasks: What the family was trained for.
        heads: Attention heads, which Ulysses divides.
    """

    spatial: int
    temporal: int
    patch: int
    latent_channels: int
    tasks: tuple[Task, ...]
    heads: int

    @property
    def side(self) -> int:
        """Pixels a token: a side of the video is a multiple of it."""
        return self.spatial * self.patch


GRIDS = {
    Model.TI2V_5B: Grid(spatial=16, temporal=4, patch=2, latent_channels=48, tasks=(Task.T2V, Task.I2V), heads=24),
    Model.T2V_A14B: Grid(spatial=8, temporal=4, patch=2, latent_channels=16, tasks=(Task.T2V,), heads=40),
    Model.I2V_A14B: Grid(spatial=8, temporal=4, patch=2, latent_channels=16, tasks=(Task.I2V,), heads=40),
}

# Tiny checkpoints run a video an eighth as wide and as long: enough tokens to time, few enough for a CPU. Sides are kept at
# multiples of 4 and 2 tokens, so a miniature divides among 8 ranks as the real sizes do.
TINY_SCALE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentShape:
    """Shape of the video latent that the denoiser sees: channels, latent frames, latent height and width; counts."""

    channels: int
    frames: int
    height: int
    width: int


def latent_shape(case: Case) -> LatentShape:
    """Shape of the video latent that the denoiser sees.

    The VAE keeps the first frame and folds each 4 later ones into one; a side shrinks by the model's stride.

    Raises:
        CaseError: frames is not 4n+1, or a side is no multiple of stride * patch.
    """
    if problems := shape_problems(case):
        raise CaseError("; ".join(problems))
    return _latent_shape(case)


def tokens(case: Case) -> int:
    """Length of the transformer's sequence, L.

    Raises:
        CaseError: As `latent_shape`.
    """
    latent_shape(case)
    return _tokens(case)


def _latent_shape(case: Case) -> LatentShape:
    grid = GRIDS[case.model]
    return LatentShape(
        channels=grid.latent_channels,
        frames=(case.frames - 1) // grid.temporal + 1,
        height=case.height // grid.spatial,
        width=case.width // grid.spatial,
    )


def _tokens(case: Case) -> int:
    shape, patch = _latent_shape(case), GRIDS[case.model].patch
    return shape.frames * (shape.height // patch) * (shape.width // patch)


def as_run(case: Case) -> Case:
    """The case with the sizes that really run: its own, or miniatures on the same grid with tiny weights."""
    if case.weights != Weights.TINY:
        return case
    grid = GRIDS[case.model]
    return replace(
        case,
        width=nearest(case.width / TINY_SCALE, 4 * grid.side),
        height=nearest(case.height / TINY_SCALE, 2 * grid.side),
        frames=nearest((case.frames - 1) / TINY_SCALE, grid.temporal) + 1 if case.frames > 1 else 1,
    )


def nearest(value: float, multiple: int) -> int:
    """The multiple nearest to the value, never 0."""
    return max(1, round(value / multiple)) * multiple


def shape_problems(case: Case) -> list[str]:
    """What the model cannot do about this case's task, size, length or degrees: one line each, with the nearest valid choice.

    diffusers floors such sizes with no more than a warning, so a table would show a resolution that never ran.
    """
    grid = GRIDS[case.model]
    problems = []
    if case.task not in grid.tasks:
        problems.append(f"task={case.task}: {case.model} does {' and '.join(grid.tasks)} only")
    for name, pixels in (("width", case.width), ("height", case.height)):
        if pixels < grid.side or pixels % grid.side:
            rule = f"is no multiple of {grid.side} (stride {grid.spatial} x patch {grid.patch} of {case.model})"
            problems.append(f"{name}={pixels} {rule}; {_near(pixels, grid.side, 0)}")
    if case.frames < 1 or (case.frames - 1) % grid.temporal:
        problems.append(f"frames={case.frames} is not {grid.temporal}n+1; {_near(case.frames, grid.temporal, 1)}")
    return problems or degree_problems(case)


def degree_problems(case: Case) -> list[str]:
    """What does not divide among the ranks: heads by the Ulysses degree, tokens by the ranks that share a sequence.

    diffusers answers an undivided head with an obscure reshape error and an undivided sequence with a refusal at the first step.
    """
    heads = GRIDS[case.model].heads
    problems = []
    degrees = {"ulysses": case.ulysses, "ring": case.ring, "cfg_parallel": case.cfg_parallel}
    product = math.prod(degrees.values())
    if case.gpus % product if case.fsdp else case.gpus != product:
        told = ", ".join(f"{name}={degree}" for name, degree in degrees.items() if degree != 1) or "all 1"
        rule = "no multiple" if case.fsdp else "not the product"
        problems.append(f"gpus={case.gpus} is {rule} of the parallel degrees ({told}); nearest: gpus={_near_gpus(case, product)}")
    ranks = case.ulysses * case.ring
    tokens = _tokens(case)
    for degree, count, what in ((case.ulysses, heads, "heads"), (case.ulysses, tokens, "tokens")):
        if count % degree:
            valid = min((d for d in range(1, heads + 1) if heads % d == 0 and tokens % (d * case.ring) == 0), key=lambda d: abs(d - degree))
            problems.append(f"ulysses={degree} does not divide the {count} {what} of {case.model} at this size; nearest: {valid}")
    if not tokens % case.ulysses and tokens % ranks:
        valid = min((d for d in range(1, tokens + 1) if tokens % (d * case.ulysses) == 0), key=lambda d: abs(d - case.ring))
        rule = f"times ulysses={case.ulysses} does not divide the {tokens} tokens of {case.model} at this size"
        problems.append(f"ring={case.ring} {rule}; nearest: {valid}")
    if case.cfg_parallel > 2:
        problems.append(f"cfg_parallel={case.cfg_parallel}: CFG has two forwards; nearest: 2")
    return problems


def _near_gpus(case: Case, product: int) -> int:
    return nearest(case.gpus, product) if case.fsdp else product


def _near(value: int, multiple: int, offset: int) -> str:
    """``nearest: low, high`` on the grid offset + n * multiple, positive ones only."""
    low = (value - offset) // multiple * multiple + offset
    choices = [choice for choice in (low, low + multiple) if choice > 0] or [offset + multiple]
    return f"nearest: {', '.join(map(str, choices))}"
