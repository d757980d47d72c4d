"""How far one video is from another that was asked for with the same words and the same seed.

PSNR and SSIM by torchmetrics (SSIM after Wang et al. 2004: Gaussian window of 11, sigma 1.5). For the perceptual one LPIPS and DISTS would need
the weights of a network that is downloaded; FLIP (Andersson et al. 2020, NVIDIA's own package) needs none and asks our very question: what
somebody sees who alternates between the two pictures, at 67 pixels a degree. Latents: the norm of the difference over the reference's norm.
torch is imported inside the functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from wansweep.drift.keepsake import Keepsake


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """How far a trial's video is from its reference's.

    Attributes:
        trial: ``ID-TRIAL`` of the video.
        against: ``ID-TRIAL`` of its reference.
        latents_sha256: Of both, the video's first; what the distance holds for.
        psnr_db: Over all frames together; null where they are equal, since it would be infinite.
        ssim: Mean over the frames; 1 where they are equal.
        flip: Mean over pixels and frames; 0 where they are equal, 1 at most.
        latent_error: Norm of the difference over the reference's norm.
        frames: Numbers of the frames that were compared.
    """

    trial: str
    against: str
    latents_sha256: tuple[str, str]
    psnr_db: float | None
    ssim: float
    flip: float
    latent_error: float
    frames: tuple[int, ...]


DISTANCE = TypeAdapter(Distance)


class DriftError(ValueError):
    """Two things that trials kept are not of one kind."""


def distance(video: Keepsake, reference: Keepsake, *, trial: str, against: str, latents_sha256: tuple[str, str]) -> Distance:
    """The distance of a video from its reference.

    Raises:
        DriftError: They differ in shape or in which frames were kept, so they are of no one workload.
    """
    shapes = [(one.latents.shape, one.frames.shape, one.numbers) for one in (video, reference)]
    if shapes[0] != shapes[1]:
        raise DriftError(f"{trial} and {against} kept different things: {shapes[0]} and {shapes[1]} (shapes of latents and frames, frames)")
    difference = np.linalg.norm((video.latents.astype(np.float64) - reference.latents).ravel())
    psnr_db, ssim = _fidelity(video, reference)
    return Distance(
        trial=trial,
        against=against,
        latents_sha256=latents_sha256,
        psnr_db=psnr_db,
        ssim=ssim,
        flip=_flip(video, reference),
        latent_error=float(difference / np.linalg.norm(reference.latents.astype(np.float64).ravel())),
        frames=video.numbers,
    )


def none(trial: str, against: str, latents_sha256: tuple[str, str], frames: tuple[int, ...] = ()) -> Distance:
    """The distance of two videos that are equal to the bit."""
    return Distance(
        trial=trial, against=against, latents_sha256=latents_sha256, psnr_db=None, ssim=1.0, flip=0.0, latent_error=0.0, frames=frames
    )


def _fidelity(video: Keepsake, reference: Keepsake) -> tuple[float | None, float]:
    """PSNR in dB over all frames, null for equal ones, and the mean SSIM."""
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    if np.array_equal(video.frames, reference.frames):
        return None, 1.0
    seen_FCHW, target_FCHW = (torch.from_numpy(one.frames).permute(0, 3, 1, 2).float() / 255 for one in (video, reference))
    psnr_db = peak_signal_noise_ratio(seen_FCHW, target_FCHW, data_range=1.0)
    # A frame at a time: the windows of one take several times its memory.
    ssims = [
        float(structural_similarity_index_measure(one[None], other[None], data_range=1.0))
        for one, other in zip(seen_FCHW, target_FCHW, strict=True)
    ]
    return float(psnr_db), float(np.mean(ssims))


def _flip(video: Keepsake, reference: Keepsake) -> float:
    import flip_evaluator

    pairs = zip(reference.frames.astype(np.float32) / 255, video.frames.astype(np.float32) / 255, strict=True)
    return float(np.mean([flip_evaluator.evaluate(target, seen, "LDR", applyMagma=False)[1] for target, seen in pairs]))
