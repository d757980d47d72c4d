"""What a trial keeps of its video so that another's can be held against it: the final latents, and some frames without loss.

One .npz a trial: ``latents`` as fp32 (20 MB for a 5 s clip at 1280x704 or 1280x720), ``numbers`` of the frames, and each frame as a PNG.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from wansweep.files import opened

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Keepsake:
    """What was kept.

    Attributes:
        latents: fp32, B x C x F x H x W.
        frames: 8-bit RGB, frames x height x width x 3, of the first video.
        numbers: Of these frames in the video.
    """

    latents: Array
    frames: Array
    numbers: tuple[int, ...]


def write(path: Path, latents: Array, frames: Sequence[Image.Image], numbers: Sequence[int]) -> None:
    """Keep latents and frames at the path."""
    pictures = {f"frame{number}": np.frombuffer(_png(frame), dtype=np.uint8) for number, frame in zip(numbers, frames, strict=True)}
    with path.open("wb") as file:
        np.savez(file, latents=latents, numbers=np.array(numbers), **pictures)  # type: ignore[arg-type]  # its stub takes names for allow_pickle


def read(path: Path) -> Keepsake | None:
    """What is kept there; null where nothing is, or nothing that can be read."""
    try:
        # Opened here: numpy leaves open what it finds to be no archive.
        with opened(path) as file, np.load(file, allow_pickle=False) as kept:
            numbers = tuple(int(number) for number in kept["numbers"])
            frames = np.stack([np.asarray(Image.open(io.BytesIO(kept[f"frame{number}"].tobytes()))) for number in numbers])
            return Keepsake(latents=kept["latents"], frames=frames, numbers=numbers)
    except (OSError, ValueError, KeyError, BadZipFile):
        return None


def _png(frame: Image.Image) -> bytes:
    file = io.BytesIO()
    frame.save(file, "PNG", compress_level=3)
    return file.getvalue()
