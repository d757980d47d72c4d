from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from wansweep.trial.frames import SHEET_BYTES, TILE_WIDTH, keep


def video(frames: int, height: int, width: int, *, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(3))


def opened(sheet: Path) -> Image.Image:
    return Image.open(io.BytesIO(sheet.read_bytes()))


def test_the_hash_is_over_the_8_bit_pixels_of_every_frame_in_order(tmp_path: Path) -> None:
    made = video(7, 16, 32, batch=2)
    pixels = (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous()
    assert keep(made, tmp_path / "a.jpg") == hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
    assert keep(made.flip(1), tmp_path / "a.jpg") != keep(made, tmp_path / "a.jpg")
    one_off = made.clone()
    one_off[1, 6, 2, 15, 31] = 1 - one_off[1, 6, 2, 15, 31]
    assert keep(one_off, tmp_path / "a.jpg") != keep(made, tmp_path / "a.jpg")


@pytest.mark.parametrize(("frames", "tiles"), [(1, (1, 1)), (5, (3, 2)), (81, (3, 2))])
def test_the_sheet_shows_six_frames_at_most_in_rows_of_three(tmp_path: Path, frames: int, tiles: tuple[int, int]) -> None:
    keep(video(frames, 18, 32), tmp_path / "sheet.jpg")
    assert opened(tmp_path / "sheet.jpg").size == (32 * tiles[0], 18 * tiles[1])


def test_the_frames_go_from_the_first_to_the_last(tmp_path: Path) -> None:
    grey = torch.linspace(0, 1, 81).view(1, 81, 1, 1, 1).expand(1, 81, 3, 16, 16)
    keep(grey, tmp_path / "sheet.jpg")
    sheet = opened(tmp_path / "sheet.jpg").convert("L")
    seen = [sheet.getpixel((8 + 16 * (place % 3), 8 + 16 * (place // 3))) for place in range(6)]
    assert seen == [pytest.approx(255 * place / 5, abs=4) for place in range(6)]


def test_the_sheet_of_a_large_noisy_video_is_small(tmp_path: Path) -> None:
    keep(video(6, 720, 1280), tmp_path / "sheet.jpg")
    assert (tmp_path / "sheet.jpg").stat().st_size <= SHEET_BYTES
    assert opened(tmp_path / "sheet.jpg").size[0] == 3 * TILE_WIDTH
