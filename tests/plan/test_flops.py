from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, DPMSolverMultistepScheduler, UniPCMultistepScheduler, WanTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import UMT5Config, UMT5EncoderModel

from wansweep.case import Case, Model, Task
from wansweep.errors import CaseError
from wansweep.levers import Solver
from wansweep.plan.architecture import ARCHITECTURES, Architecture, TextEncoder, Transformer, Vae
from wansweep.plan.flops import (
    case_flop,
    forwards,
    solver_timesteps,
    step_experts,
    text_encoder_flop,
    transformer_flop,
    vae_decode_flop,
    vae_encode_flop,
)
from wansweep.plan.geometry import GRIDS, LatentShape
from wansweep.record import Expert
from wansweep.trial.solvers import WanEulerScheduler

# diffusers' DPM-Solver++ hands numpy a tensor in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TERA = 1e12
PETA = 1e15

# No number equal to another, so that a mistaken one shows.
SMALL = Transformer(
    heads=3, head_dim=20, layers=2, ffn_dim=70, in_channels=9, out_channels=5, patch=2, text_dim=33, freq_dim=34, token_timesteps=False
)
SMALL_TEXT = TextEncoder(dim=24, ffn_dim=50, layers=3, heads=2, head_dim=7, tokens=19)
SMALL_VAES = {
    "plain": Vae(
        encoder_dim=6,
        decoder_dim=10,
        latent_channels=5,
        pixel_channels=3,
        patch=1,
        widths=(1, 2, 3, 3),
        res_blocks=3,
        temporal=(True, True, False),
        residual=False,
    ),
    "residual": Vae(
        encoder_dim=8,
        decoder_dim=16,
        latent_channels=5,
        pixel_channels=12,
        patch=2,
        widths=(1, 2, 4, 4),
        res_blocks=1,
        temporal=(False, True, True),
        residual=True,
    ),
}


def case(model: Model = Model.TI2V_5B, task: Task = Task.T2V, **fields: float | None) -> Case:
    official: dict[str, Any] = {
        Model.TI2V_5B: {"width": 1280, "height": 704, "frames": 121, "steps": 50, "shift": 5.0, "guidance": 5.0, "guidance_2": None},
        Model.T2V_A14B: {"width": 1280, "height": 720, "frames": 81, "steps": 40, "shift": 12.0, "guidance": 4.0, "guidance_2": 3.0},
        Model.I2V_A14B: {"width": 1280, "height": 720, "frames": 81, "steps": 40, "shift": 5.0, "guidance": 3.5, "guidance_2": 3.5},
    }[model]
    return Case(**{"model": model, "task": task, "weights": "hub", "prompt": "p", "negative_prompt": "n", **official, **fields})


def counted(run: Callable[[], object]) -> int:
    """What torch counts."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def dit(transformer: Transformer) -> torch.nn.Module:
    with torch.device("meta"):
        return WanTransformer3DModel(
            num_attention_heads=transformer.heads,
            attention_head_dim=transformer.head_dim,
            num_layers=transformer.layers,
            ffn_dim=transformer.ffn_dim,
            in_channels=transformer.in_channels,
            out_channels=transformer.out_channels,
            patch_size=(1, transformer.patch, transformer.patch),
            text_dim=transformer.text_dim,
            freq_dim=transformer.freq_dim,
        )


def autoencoder(vae: Vae) -> AutoencoderKLWan:
    with torch.device("meta"):
        return AutoencoderKLWan(
            base_dim=vae.encoder_dim,
            decoder_base_dim=vae.decoder_dim,
            z_dim=vae.latent_channels,
            in_channels=vae.pixel_channels,
            out_channels=vae.pixel_channels,
            patch_size=None if vae.patch == 1 else vae.patch,
            dim_mult=list(vae.widths),
            num_res_blocks=vae.res_blocks,
            temperal_downsample=list(vae.temporal),
            is_residual=vae.residual,
            scale_factor_spatial=vae.spatial_stride,
            scale_factor_temporal=vae.temporal_stride,
        )


def umt5(encoder: TextEncoder, *, vocabulary: int) -> torch.nn.Module:
    with torch.device("meta"):
        return UMT5EncoderModel(
            UMT5Config(
                vocab_size=vocabulary,
                d_model=encoder.dim,
                d_ff=encoder.ffn_dim,
                num_layers=encoder.layers,
                num_heads=encoder.heads,
                d_kv=encoder.head_dim,
                feed_forward_proj="gated-gelu",
            )
        ).eval()


def counted_forward(transformer: Transformer, shape: LatentShape, *, text_tokens: int, batch: int = 1) -> int:
    tokens = shape.frames * shape.height * shape.width // transformer.patch**2
    network = dit(transformer)
    with torch.device("meta"):
        arguments = {
            "hidden_states": torch.empty(batch, transformer.in_channels, shape.frames, shape.height, shape.width),
            "timestep": torch.empty(batch, tokens) if transformer.token_timesteps else torch.empty(batch),
            "encoder_hidden_states": torch.empty(batch, text_tokens, transformer.text_dim),
        }
    return counted(lambda: network(**arguments))


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("token_timesteps", [False, True])
@pytest.mark.parametrize(("frames", "height", "width", "text_tokens"), [(1, 2, 2, 1), (3, 4, 6, 512), (5, 8, 4, 17)])
def test_a_small_transformer_takes_what_torch_counts(frames: int, height: int, width: int, text_tokens: int, *, token_timesteps: bool) -> None:
    transformer = replace(SMALL, token_timesteps=token_timesteps)
    shape = LatentShape(channels=9, frames=frames, height=height, width=width)
    assert transformer_flop(transformer, shape, text_tokens=text_tokens) == counted_forward(transformer, shape, text_tokens=text_tokens)


def test_the_real_5b_transformer_takes_what_torch_counts_for_five_seconds_of_720p() -> None:
    transformer = ARCHITECTURES[Model.TI2V_5B].transformer
    shape = LatentShape(channels=48, frames=31, height=44, width=80)
    assert transformer_flop(transformer, shape, text_tokens=512) == counted_forward(transformer, shape, text_tokens=512)


@pytest.mark.parametrize("vae", [*SMALL_VAES.values(), ARCHITECTURES[Model.TI2V_5B].vae, ARCHITECTURES[Model.T2V_A14B].vae])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 4, 2), (3, 2, 6)])
def test_a_vae_takes_what_torch_counts(vae: Vae, frames: int, height: int, width: int) -> None:
    network, stride = autoencoder(vae), vae.spatial_stride
    with torch.device("meta"):
        latent = torch.empty(1, vae.latent_channels, frames, height, width)
        video = torch.empty(1, 3, 4 * (frames - 1) + 1, height * stride, width * stride)
    assert vae_decode_flop(vae, frames=frames, height=height, width=width) == counted(lambda: network.decode(latent))
    assert vae_encode_flop(vae, frames=frames, height=height, width=width) == counted(lambda: network.encode(video))


@pytest.mark.parametrize("encoder", [SMALL_TEXT, ARCHITECTURES[Model.TI2V_5B].text_encoder])
def test_a_text_encoder_takes_what_torch_counts(encoder: TextEncoder) -> None:
    network = umt5(encoder, vocabulary=100)
    ids = torch.zeros(1, encoder.tokens, dtype=torch.long, device="meta")
    assert text_encoder_flop(encoder) == counted(lambda: network(ids))


def test_the_architectures_have_the_parameters_of_the_published_checkpoints() -> None:
    assert {model: parameters(dit(networks.transformer)) for model, networks in ARCHITECTURES.items()} == {
        Model.TI2V_5B: 4_999_787_712,
        Model.T2V_A14B: 14_288_491_584,
        Model.I2V_A14B: 14_288_901_184,
    }
    assert {model: parameters(autoencoder(networks.vae)) for model, networks in ARCHITECTURES.items()} == {
        Model.TI2V_5B: 704_688_668,
        Model.T2V_A14B: 126_892_531,
        Model.I2V_A14B: 126_892_531,
    }
    assert parameters(umt5(ARCHITECTURES[Model.TI2V_5B].text_encoder, vocabulary=256_384)) == 5_680_910_336


@pytest.mark.parametrize("model", Model)
def test_architecture_and_geometry_tell_the_same_grid(model: Model) -> None:
    grid, networks = GRIDS[model], ARCHITECTURES[model]
    assert (networks.vae.spatial_stride, networks.vae.temporal_stride) == (grid.spatial, grid.temporal)
    assert (networks.transformer.patch, networks.transformer.heads) == (grid.patch, grid.heads)
    assert networks.vae.latent_channels == networks.transformer.out_channels == grid.latent_channels


@pytest.mark.parametrize(
    ("measured", "pflop"),
    [
        # Often given as 1.03, which leaves out the time embedding of each of the 27,280 tokens.
        (case(Model.TI2V_5B), 1.0413),
        (case(Model.TI2V_5B, frames=81), 0.5859),
        (case(Model.T2V_A14B), 13.047),
        (case(Model.T2V_A14B, width=832, height=480), 3.3567),
        (case(Model.I2V_A14B, Task.I2V, width=832, height=480), 3.3568),
    ],
    ids=lambda value: f"{value.model}-{value.width}x{value.frames}" if isinstance(value, Case) else "",
)
def test_a_step_with_cfg_takes_the_known_petaflop(measured: Case, pflop: float) -> None:
    assert case_flop(measured).steps_flop[0] / PETA == pytest.approx(pflop, rel=1e-4)


def test_the_stages_around_the_loop_take_the_known_teraflop() -> None:
    long, short = case_flop(case(Model.TI2V_5B)), case_flop(case(Model.TI2V_5B, Task.I2V, frames=81))
    large = case_flop(case(Model.I2V_A14B, Task.I2V))
    small = case_flop(case(Model.I2V_A14B, Task.I2V, width=832, height=480))
    assert [flop.vae_decode_flop / TERA for flop in (long, short, large, small)] == pytest.approx([2011, 1348, 639, 275], rel=2e-3)
    assert [flop.preprocess_flop / TERA for flop in (long, short, large, small)] == pytest.approx([0, 4.2, 382, 164], rel=1e-2)
    assert long.text_encode_flop / TERA == pytest.approx(2 * 4.845, rel=1e-3)


@pytest.mark.parametrize("vae", [ARCHITECTURES[Model.TI2V_5B].vae, ARCHITECTURES[Model.T2V_A14B].vae])
@given(frames=st.integers(min_value=2, max_value=50))
def test_a_vae_grows_linearly_with_latent_frames(vae: Vae, frames: int) -> None:
    for flop in (vae_decode_flop, vae_encode_flop):
        one, two, three, many = (flop(vae, frames=count, height=6, width=4) for count in (1, 2, 3, frames))
        assert three - two == two - one
        assert many == two + (frames - 2) * (three - two)


SCHEDULERS: dict[Solver, Callable[[float], Any]] = {
    Solver.UNIPC: lambda shift: UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    Solver.DPMPP: lambda shift: DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    Solver.EULER: lambda shift: WanEulerScheduler(shift=shift),
}


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 12.0])
@pytest.mark.parametrize("solver", Solver)
def test_timesteps_and_experts_are_those_of_the_scheduler(solver: Solver, shift: float) -> None:
    scheduler = SCHEDULERS[solver](shift)
    for steps in (1, 2, 3, 4, 20, 27, 40, 50):
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps.tolist()
        # Euler's are fp32.
        assert solver_timesteps(steps=steps, shift=shift, solver=solver) == pytest.approx(times, rel=1e-6 if solver is Solver.EULER else 0)
        for boundary in (0.875, 0.9):
            expected = tuple(Expert.HIGH if time >= boundary * 1000 else Expert.LOW for time in times)
            assert step_experts(steps=steps, shift=shift, boundary=boundary, solver=solver) == expected


@pytest.mark.parametrize("steps", [4, 40])
def test_solvers_share_the_noise_levels_but_for_a_thousandth(steps: int) -> None:
    levels = {}
    for solver in Solver:
        scheduler = SCHEDULERS[solver](12.0)
        scheduler.set_timesteps(steps)
        levels[solver] = scheduler.sigmas.tolist()
    assert levels[Solver.EULER] == pytest.approx(levels[Solver.UNIPC], abs=2e-6)
    assert levels[Solver.DPMPP] == pytest.approx(levels[Solver.UNIPC], abs=0.012)


@pytest.mark.parametrize(("shift", "boundary", "high"), [(12.0, 0.875, 26), (3.0, 0.875, 13), (5.0, 0.9, 15), (3.0, 0.9, 11)])
def test_the_official_shift_gives_the_high_noise_expert_more_steps(shift: float, boundary: float, high: int) -> None:
    assert step_experts(steps=40, shift=shift, boundary=boundary) == (Expert.HIGH,) * high + (Expert.LOW,) * (40 - high)


def test_one_expert_is_no_expert() -> None:
    assert step_experts(steps=3, shift=5.0, boundary=None) == (None, None, None)


@pytest.mark.parametrize(("guidance", "guidance_2", "count"), [(4.0, 3.0, 2), (4.0, 1.0, 2), (1.0, 3.0, 1), (1.0, None, 1), (4.0, None, 2)])
def test_the_first_guidance_decides_the_forwards_of_both_experts(guidance: float, guidance_2: float | None, count: int) -> None:
    measured, networks = case(Model.T2V_A14B, guidance=guidance, guidance_2=guidance_2), ARCHITECTURES[Model.T2V_A14B]
    one = transformer_flop(networks.transformer, LatentShape(channels=16, frames=21, height=90, width=160), text_tokens=512)
    flop = case_flop(measured)
    assert forwards(measured) == count
    assert flop.steps_flop == (count * one,) * 40
    assert flop.text_encode_flop == count * text_encoder_flop(networks.text_encoder)


def test_a_case_is_the_sum_of_its_stages() -> None:
    flop = case_flop(case(Model.I2V_A14B, Task.I2V, steps=4))
    assert flop.denoise_flop == sum(flop.steps_flop)
    assert flop.total_flop == flop.text_encode_flop + flop.preprocess_flop + flop.denoise_flop + flop.vae_decode_flop
    assert min(flop.text_encode_flop, flop.preprocess_flop, *flop.steps_flop, flop.vae_decode_flop) > 0


def test_a_checkpoint_with_other_numbers_brings_its_architecture() -> None:
    miniature = Architecture(
        transformer=replace(SMALL, token_timesteps=True), text_encoder=SMALL_TEXT, vae=SMALL_VAES["residual"], boundary=None
    )
    flop = case_flop(case(width=128, height=64, frames=17, steps=2), miniature)
    shape = LatentShape(channels=5, frames=5, height=4, width=8)
    assert flop.steps_flop == (2 * transformer_flop(miniature.transformer, shape, text_tokens=19),) * 2
    assert flop.vae_decode_flop == vae_decode_flop(miniature.vae, frames=5, height=4, width=8)
    assert flop.text_encode_flop == 2 * text_encoder_flop(SMALL_TEXT)


@pytest.mark.parametrize(("model", "task"), [(Model.TI2V_5B, Task.T2V), (Model.I2V_A14B, Task.I2V)])
def test_a_batch_shares_prompt_and_image_and_multiplies_the_rest(model: Model, task: Task) -> None:
    one, three = case_flop(case(model, task)), case_flop(case(model, task, batch=3))
    assert (three.text_encode_flop, three.preprocess_flop) == (one.text_encode_flop, one.preprocess_flop)
    assert (three.denoise_flop, three.vae_decode_flop) == (3 * one.denoise_flop, 3 * one.vae_decode_flop)


@pytest.mark.parametrize("token_timesteps", [False, True])
def test_a_batch_takes_what_torch_counts(*, token_timesteps: bool) -> None:
    transformer, vae = replace(SMALL, token_timesteps=token_timesteps), SMALL_VAES["residual"]
    shape = LatentShape(channels=5, frames=3, height=4, width=6)
    assert 2 * transformer_flop(transformer, shape, text_tokens=17) == counted_forward(transformer, shape, text_tokens=17, batch=2)
    network = autoencoder(vae)
    latents = torch.empty(2, vae.latent_channels, 3, 4, 6, device="meta")
    assert 2 * vae_decode_flop(vae, frames=3, height=4, width=6) == counted(lambda: network.decode(latents))


def test_ranks_share_the_work_of_a_video_and_add_none() -> None:
    assert case_flop(case(gpus=4, ulysses=4)) == case_flop(case())


def test_a_size_off_the_grid_is_an_error() -> None:
    with pytest.raises(CaseError, match="height=720"):
        case_flop(case(height=720))


@given(
    model=st.sampled_from(Model),
    width=st.integers(min_value=1, max_value=40),
    height=st.integers(min_value=1, max_value=24),
    frames=st.integers(min_value=0, max_value=40),
    steps=st.integers(min_value=1, max_value=60),
)
def test_flop_grow_with_frames_size_and_steps(model: Model, width: int, height: int, frames: int, steps: int) -> None:
    side = GRIDS[model].side
    task = GRIDS[model].tasks[-1]
    fields = {"width": width * side, "height": height * side, "frames": 4 * frames + 1, "steps": steps}
    total = case_flop(case(model, task, **fields)).total_flop
    for field, more in (("width", side), ("height", side), ("frames", 4), ("steps", 1)):
        assert case_flop(case(model, task, **{**fields, field: fields[field] + more})).total_flop > total


def test_the_formula_needs_no_torch() -> None:
    script = "import sys, wansweep.plan.flops; sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
