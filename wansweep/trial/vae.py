"""The VAE's levers: number format, tiles, slices (diffusers AutoencoderKLWan), and fused projections of the experts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wansweep.case import Case
from wansweep.levers import Weights
from wansweep.plan.geometry import TINY_SCALE
from wansweep.trial.formats import TORCH_DTYPES
from wansweep.trial.invalid import Invalid, hold
from wansweep.trial.pipeline import WanPipe

# diffusers' tiles: 256 pixels, 192 from one to the next. A miniature is an eighth as wide and gets tiles an eighth as wide.
TILE_PIXELS, STRIDE_PIXELS = 256, 192


def apply(pipe: WanPipe, case: Case) -> None:
    """Set number format, tiles and slices."""
    if pipe.vae.dtype != TORCH_DTYPES[case.vae_dtype]:
        pipe.vae.to(TORCH_DTYPES[case.vae_dtype])
    if case.vae_tiling:
        scale = TINY_SCALE if case.weights == Weights.TINY else 1
        tile, stride = TILE_PIXELS // scale, STRIDE_PIXELS // scale
        pipe.vae.enable_tiling(tile, tile, stride, stride)
    if case.vae_slicing:
        pipe.vae.enable_slicing()


def check(pipe: WanPipe, case: Case) -> None:
    """Hold what was declared of the VAE against it.

    Raises:
        Invalid: It differs, or the video is no larger than a tile, which diffusers then leaves whole.
    """
    hold("vae_dtype", declared=str(case.vae_dtype), resolved=_short(pipe))
    hold("vae_tiling", declared=case.vae_tiling, resolved=bool(pipe.vae.use_tiling))
    hold("vae_slicing", declared=case.vae_slicing, resolved=bool(pipe.vae.use_slicing))
    if case.vae_tiling and case.width <= pipe.vae.tile_sample_min_width and case.height <= pipe.vae.tile_sample_min_height:
        tile = f"{pipe.vae.tile_sample_min_width}x{pipe.vae.tile_sample_min_height}"
        raise Invalid(f"declared vae_tiling=True, resolved one tile: {case.width}x{case.height} is no larger than {tile}")


def check_tiles(case: Case, tiled: int) -> None:
    """After a generation: hold the declared tiles against how many decodes were tiled.

    Raises:
        Invalid: None was though tiles were declared, or some was though none were.
    """
    if (tiled > 0) != case.vae_tiling:
        raise Invalid(f"declared vae_tiling={case.vae_tiling}, resolved {tiled} tiled decodes")


def _short(pipe: WanPipe) -> str:
    """The VAE's number format by the name that a case gives it."""
    return next((str(name) for name, dtype in TORCH_DTYPES.items() if dtype == pipe.vae.dtype), str(pipe.vae.dtype))


def resolved(pipe: WanPipe) -> str:
    """Tiling and slicing in force; empty for neither."""
    vae = pipe.vae
    tiles = [f"tiles of {vae.tile_sample_min_width}x{vae.tile_sample_min_height} pixels"] if vae.use_tiling else []
    return ", ".join([*tiles, *(["slices of 1"] if vae.use_slicing else [])])


@contextmanager
def counted_tiles(pipe: WanPipe) -> Iterator[list[int]]:
    """Counts tiled decodes inside the ``with``, in the list's one element."""
    count = [0]
    plain = pipe.vae.tiled_decode

    def tiled(*args: object, **kwargs: object) -> object:
        count[0] += 1
        return plain(*args, **kwargs)

    pipe.vae.tiled_decode = tiled
    try:
        yield count
    finally:
        del pipe.vae.tiled_decode
