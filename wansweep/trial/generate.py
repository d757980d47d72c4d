"""Our own generation loop over the pipelines' public sub-methods, so that loading, each step and decoding can be told apart.

Follows WanPipeline.__call__ and WanImageToVideoPipeline.__call__ of diffusers 0.42 and is bit-equal to them (tests/trial/test_generate.py
holds it to that for all families). A case's videos are made at once, from one prompt.

Legend: B batch, C channels, F latent frames, H latent height, W latent width, L tokens, T text tokens, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import WanImageToVideoPipeline
from diffusers.utils.torch_utils import get_module_execution_device
from PIL import Image

from wansweep.case import Case
from wansweep.levers import TextEncoder
from wansweep.record import Expert, StageKind
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.placement import Placement
from wansweep.trial.stages import Stages

# Prompts are padded to as many (Wan2.2 wan/configs/shared_config.py, text_len).
TEXT_TOKENS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """Prompt embeddings, B x T x D in the transformer's number format; the negative one is null without CFG."""

    prompt_BTD: torch.Tensor
    negative_BTD: torch.Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What the denoising loop starts from.

    Attributes:
        latents_BCFHW: Noise, fp32.
        condition_BCFHW: Encoded image: for A14B the extra channels (mask and condition), for 5B the first frame; null for text only.
        mask_BCFHW: 5B only: 0 where a latent frame is given by the image, 1 elsewhere.
    """

    latents_BCFHW: torch.Tensor
    condition_BCFHW: torch.Tensor | None
    mask_BCFHW: torch.Tensor | None


@torch.no_grad()
def generate(
    pipe: WanPipe, case: Case, stages: Stages, *, text_tokens: int = TEXT_TOKENS, placement: Placement | None = None, last: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The final latents (B x C x F x H x W) and the videos (B x frames x 3 x height x width, 0 to 1) of a case.

    Args:
        pipe: Loaded, with its offload mode applied.
        case: With the sizes that are to run.
        stages: Where each window is recorded.
        text_tokens: Length that prompts are padded to.
        placement: What moves weights by our own hand; null where diffusers' hooks do it all.
        last: Whether T5 may be dropped, since no generation of this pipeline comes after.
    """
    placement = placement or Placement(device=pipe._execution_device)
    device = placement.device
    with stages(StageKind.T5_ENCODING):
        texts = encode(pipe, case, device, text_tokens=text_tokens)
        if case.text_encoder is TextEncoder.DROPPED and last:
            placement.drop_text_encoder(pipe)
    with stages(StageKind.PREPROCESS):
        pipe.scheduler.set_timesteps(case.steps, device=device)
        pipe.scheduler.set_begin_index(0)
        start = prepare(pipe, case, device)
        placement.park_vae(pipe)
    latents_BCFHW = denoise(pipe, case, texts, start, stages, placement)
    with stages(StageKind.VAE_DECODING):
        video = decode(pipe, latents_BCFHW, device)
        placement.park_vae(pipe)
    return latents_BCFHW, video


def encode(pipe: WanPipe, case: Case, device: torch.device, *, text_tokens: int) -> Texts:
    """The prompt's embeddings and, with CFG, the negative prompt's: two T5 forwards, in the official order, repeated for each video."""
    prompt, negative = pipe.encode_prompt(
        prompt=case.prompt,
        negative_prompt=case.negative_prompt,
        do_classifier_free_guidance=case.guidance > 1,
        num_videos_per_prompt=case.batch,
        max_sequence_length=text_tokens,
        device=torch.device("cpu") if case.text_encoder is TextEncoder.CPU else device,
    )
    dtype = pipe.transformer.dtype
    return Texts(prompt_BTD=prompt.to(device, dtype), negative_BTD=None if negative is None else negative.to(device, dtype))


def prepare(pipe: WanPipe, case: Case, device: torch.device) -> Start:
    """Noise from the case's seed and, for I2V, the encoded image: one frame for 5B, the whole zero-padded clip for A14B.

    The noise of all videos is drawn at once on the CPU, so that a seed means the same videos on every device; the image is encoded once.
    """
    generator = torch.Generator("cpu").manual_seed(case.seed)
    size = (case.height, case.width, case.frames, torch.float32, device, generator)
    if not isinstance(pipe, WanImageToVideoPipeline):
        noise = pipe.prepare_latents(case.batch, pipe.transformer.config.in_channels, *size)
        mask = torch.ones_like(noise) if pipe.config.expand_timesteps else None
        return Start(latents_BCFHW=noise, condition_BCFHW=None, mask_BCFHW=mask)
    image = pipe.video_processor.preprocess(still(case), height=case.height, width=case.width).to(device, dtype=torch.float32)
    noise, condition, *mask = pipe.prepare_latents(image, case.batch, pipe.vae.config.z_dim, *size)
    return Start(latents_BCFHW=noise, condition_BCFHW=condition, mask_BCFHW=mask[0] if mask else None)


def still(case: Case) -> Image.Image:
    """The image that I2V cases start from: a smooth colour gradient of the case's size, equal everywhere."""
    across = Image.linear_gradient("L").rotate(90).resize((case.width, case.height))
    down = Image.linear_gradient("L").resize((case.width, case.height))
    radial = Image.radial_gradient("L").resize((case.width, case.height))
    return Image.merge("RGB", (across, down, radial))


def denoise(pipe: WanPipe, case: Case, texts: Texts, start: Start, stages: Stages, placement: Placement) -> torch.Tensor:
    """The final latents, after every step in the expert that the schedule gives it to."""
    latents_BCFHW = start.latents_BCFHW
    timesteps = pipe.scheduler.timesteps
    # Read on the host once: a comparison with a CUDA timestep, or Euler's sigma, would wait for the device at every step.
    times, sigmas = timesteps.tolist(), pipe.scheduler.sigmas.tolist()
    experts = expert_schedule(pipe, times)
    for step, (t, expert) in enumerate(zip(timesteps, experts, strict=True)):
        pipe._current_timestep = times[step]
        low = expert is Expert.LOW
        model = pipe.transformer_2 if low else pipe.transformer
        guidance = case.guidance_2 if low and case.guidance_2 is not None else case.guidance
        with stages(StageKind.STEP_LOADING, step=step, expert=expert):
            placement.bring(model)
        with stages(StageKind.STEP_INFERENCE, step=step, expert=expert):
            x_BCFHW, timestep_BL = model_input(start, latents_BCFHW, t)
            call = {"hidden_states": x_BCFHW.to(pipe.transformer.dtype), "timestep": timestep_BL, "return_dict": False}
            where = {"step_index": step, "sigma": sigmas[step], "num_inference_steps": len(timesteps)}
            with model.cache_context("cond", **where):
                noise_BCFHW = model(encoder_hidden_states=texts.prompt_BTD, **call)[0]
            if texts.negative_BTD is not None:
                with model.cache_context("uncond", **where):
                    uncond_BCFHW = model(encoder_hidden_states=texts.negative_BTD, **call)[0]
                noise_BCFHW = uncond_BCFHW + guidance * (noise_BCFHW - uncond_BCFHW)
            latents_BCFHW = pipe.scheduler.step(noise_BCFHW, t, latents_BCFHW, return_dict=False)[0]
    if start.condition_BCFHW is not None and start.mask_BCFHW is not None:
        latents_BCFHW = (1 - start.mask_BCFHW) * start.condition_BCFHW + start.mask_BCFHW * latents_BCFHW
    return latents_BCFHW


def expert_schedule(pipe: WanPipe, timesteps: list[float]) -> list[Expert | None]:
    """Which expert runs each step: high noise at or above the boundary, low noise below; null for a model with one."""
    if pipe.config.boundary_ratio is None:
        return [None] * len(timesteps)
    boundary = pipe.config.boundary_ratio * pipe.scheduler.config.num_train_timesteps
    return [Expert.HIGH if t >= boundary else Expert.LOW for t in timesteps]


def model_input(start: Start, latents_BCFHW: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The transformer's latent input, and its timesteps: B for A14B, B x L for 5B, which is told of given frames a token at a time."""
    if start.mask_BCFHW is None:
        parts = [latents_BCFHW] if start.condition_BCFHW is None else [latents_BCFHW, start.condition_BCFHW]
        return torch.cat(parts, dim=1), t.expand(latents_BCFHW.shape[0])
    timestep_L = (start.mask_BCFHW[0][0][:, ::2, ::2] * t).flatten()
    timestep_BL = timestep_L.unsqueeze(0).expand(latents_BCFHW.shape[0], -1)
    if start.condition_BCFHW is None:
        return latents_BCFHW, timestep_BL
    return (1 - start.mask_BCFHW) * start.condition_BCFHW + start.mask_BCFHW * latents_BCFHW, timestep_BL


def decode(pipe: WanPipe, latents_BCFHW: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """The videos, B x frames x 3 x height x width from 0 to 1, on the device where the VAE computes."""
    vae = pipe.vae
    latents_BCFHW = latents_BCFHW.to(device=device or get_module_execution_device(vae), dtype=vae.dtype)
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape).to(latents_BCFHW)
    inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(shape).to(latents_BCFHW)
    pixels = vae.decode(latents_BCFHW / inverse_std + mean, return_dict=False)[0]
    video: torch.Tensor = pipe.video_processor.postprocess_video(pixels, output_type="pt")
    return video
