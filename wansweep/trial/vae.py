"""The VAE's levers: number format, tiles, slices (diffusers AutoencoderKLWan), and fused projections of the experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
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


def check_decodes(case: Case, *, decodes: int, tiled: int) -> None:
    """After a generation: hold the declared slices and tiles against how many decodes there were, and how many of them were tiled.

    A rank that does not decode shows nothing.

    Raises:
        Invalid: A batch was decoded whole though slices were declared, or the other way round; or so of tiles.
    """
    if decodes and decodes != (case.batch if case.vae_slicing else 1):
        raise Invalid(f"declared vae_slicing={case.vae_slicing}, batch={case.batch}, resolved {decodes} decodes")
    if (tiled > 0) != (case.vae_tiling and decodes > 0):
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
def counted_decodes(pipe: WanPipe) -> Iterator[Counter[str]]:
    """Counts the VAE's decodes (``_decode``) and the tiled ones among them (``tiled_decode``) inside the ``with``."""
    counter: Counter[str] = Counter()
    for name in ("_decode", "tiled_decode"):
        setattr(pipe.vae, name, _counting(counter, name, getattr(pipe.vae, name)))
    try:
        yield counter
    finally:
        del pipe.vae._decode, pipe.vae.tiled_decode


def _counting(counter: Counter[str], name: str, plain: Callable[..., object]) -> Callable[..., object]:
    def counted(*args: object, **kwargs: object) -> object:
        counter[name] += 1
        return plain(*args, **kwargs)

    return counted
