"""How far two videos are apart, against scikit-image and formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drift.videos import made
from wansweep.drift.distance import Distance, DriftError, distance
from wansweep.drift.keepsake import Keepsake, read, write


def apart(video: Keepsake, reference: Keepsake) -> Distance:
    return distance(video, reference, trial="b-0", against="a-0", latents_sha256=("b", "a"))


# skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False), scikit-image 0.26.
@pytest.mark.parametrize(
    ("video", "ssim", "flip"),
    [(made(shift=10), 0.99641, 0.20465), (made(gain=0.8), 0.97593, 0.21710), (made(shift=3, gain=1.1), 0.99517, 0.16577)],
)
def test_ssim_and_psnr_are_those_of_an_independent_implementation(video: Keepsake, ssim: float, flip: float) -> None:
    found = apart(video, made())
    squares = (video.frames.astype(float) - made().frames) ** 2
    assert found.ssim == pytest.approx(ssim, abs=2e-4)
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / squares.mean()), abs=1e-4)
    # Of flip-evaluator 1.7, so that another version does not change what is reported unseen.
    assert found.flip == pytest.approx(flip, abs=2e-4)


def test_latents_are_held_by_their_norms() -> None:
    assert apart(made(scale=1.25), made()).latent_error == pytest.approx(0.25)
    assert apart(made(scale=0.5), made()).latent_error == pytest.approx(0.5)


def test_equal_videos_have_no_distance_and_no_psnr_since_it_would_be_infinite() -> None:
    found = apart(made(), made())
    assert (found.psnr_db, found.ssim, found.flip, found.latent_error, found.frames) == (None, 1.0, 0.0, 0.0, (0, 16))


def test_videos_of_different_kind_are_refused() -> None:
    with pytest.raises(DriftError, match="b-0 and a-0 kept different things"):
        apart(replace(made(), numbers=(0, 8)), made())


def test_what_is_kept_comes_back_to_the_bit_and_what_is_cut_short_does_not(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    write(path, made().latents, [Image.fromarray(frame) for frame in made().frames], made().numbers)
    kept = read(path)
    assert kept is not None
    assert np.array_equal(kept.latents, made().latents)
    assert np.array_equal(kept.frames, made().frames)
    assert kept.numbers == (0, 16)
    path.write_bytes(path.read_bytes()[:500])
    assert read(path) is None
    assert read(tmp_path / "nothing.npz") is None
