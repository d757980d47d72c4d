"""What a video shows, kept small: the hash of its pixels, and a contact sheet of a few frames.

On the CPU and a frame at a time: a video that has just been decoded may leave no room on its GPU.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from PIL import Image

from wansweep.drift.keepsake import write

SHEET_FRAMES = 6
SHEET_COLUMNS = 3
TILE_WIDTH = 240
SHEET_BYTES = 64 * 1024
_QUALITIES = (85, 70, 50, 30, 10)


def keep(video: torch.Tensor, sheet: Path, keepsake: Path | None = None, latents_BCFHW: torch.Tensor | None = None) -> str:
    """The SHA-256 of a batch of videos (B x frames x 3 x height x width, 0 to 1) as 8-bit RGB; writes the first one's contact sheet as JPEG.

    With a path for it, what the first can be held against another by is kept there too: the latents and the sheet's frames, as they are.
    """
    shown = set(_across(video.shape[1]))
    digest = hashlib.sha256()
    tiles = []
    for place, one in enumerate(video):
        for number, frame in enumerate(one):
            pixels_HWC = (frame.cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
            digest.update(pixels_HWC.tobytes())
            if place == 0 and number in shown:
                tiles.append(Image.fromarray(pixels_HWC))
    sheet.write_bytes(contact_sheet(tiles))
    if keepsake is not None and latents_BCFHW is not None:
        write(keepsake, latents_BCFHW.float().cpu().numpy(), tiles, sorted(shown))
    return digest.hexdigest()


def contact_sheet(frames: list[Image.Image]) -> bytes:
    """Frames in rows of three as one JPEG, each at most `TILE_WIDTH` wide, the whole of about `SHEET_BYTES` at most."""
    width, height = frames[0].size
    scale = min(1.0, TILE_WIDTH / width)
    tile = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = min(SHEET_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * tile[0], rows * tile[1]))
    for place, frame in enumerate(frames):
        sheet.paste(frame.resize(tile, Image.Resampling.LANCZOS), (place % columns * tile[0], place // columns * tile[1]))
    for quality in _QUALITIES:
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= SHEET_BYTES:
            break
    return file.getvalue()


def _across(frames: int) -> list[int]:
    """Numbers of the frames that are shown: the first, the last, and as many between them at equal distances."""
    if frames <= SHEET_FRAMES:
        return list(range(frames))
    return [round(place * (frames - 1) / (SHEET_FRAMES - 1)) for place in range(SHEET_FRAMES)]
