"""Keepsakes with known contents."""

from __future__ import annotations

import numpy as np

from wansweep.drift.keepsake import Keepsake

HEIGHT, WIDTH = 48, 64


def made(*, shift: float = 0.0, gain: float = 1.0, scale: float = 1.0) -> Keepsake:
    """Two frames of waves, brighter by ``shift`` of 255 and steeper by ``gain``, and latents that are ``scale`` times 1 to 24."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    waves = [np.stack([np.sin(x / (3 + c) + f) * np.cos(y / (4 + c)) for c in range(3)], axis=-1) for f in range(2)]
    frames = np.stack([(128 + shift + 80 * gain * wave).round().clip(0, 255).astype(np.uint8) for wave in waves])
    latents = scale * np.arange(1, 25, dtype=np.float32).reshape(1, 2, 3, 2, 2)
    return Keepsake(latents=latents, frames=frames, numbers=(0, 16))
