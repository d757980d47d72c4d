"""The presets that ship, against what Wan2.2, diffusers and MLPerf say."""

from __future__ import annotations

import inspect

import pytest
from diffusers import WanImageToVideoPipeline, WanPipeline

from wansweep.case import Case, Model, Preset
from wansweep.config import read_request
from wansweep.errors import ConfigError
from wansweep.plan.flops import step_experts
from wansweep.presets import told
from wansweep.record import Expert

BOUNDARY = {Model.T2V_A14B: 0.875, Model.I2V_A14B: 0.9}


def whole(preset: str, model: Model) -> Case:
    (case,) = read_request(["+sweep=mlperf", "~sweep.axes.ulysses", f"preset={preset}", f"model={model}"]).sweep.cases
    return case


@pytest.mark.parametrize(
    ("model", "settings", "high"),
    [
        (Model.TI2V_5B, (1280, 704, 121, 50, 5.0, 5.0, None), 0),
        (Model.T2V_A14B, (1280, 720, 81, 40, 12.0, 4.0, 3.0), 26),
        (Model.I2V_A14B, (1280, 720, 81, 40, 5.0, 3.5, 3.5), 15),
    ],
)
def test_the_official_settings_are_those_of_wan(model: Model, settings: tuple[object, ...], high: int) -> None:
    case = whole("official", model)
    assert (case.width, case.height, case.frames, case.steps, case.shift, case.guidance, case.guidance_2) == settings
    assert case.preset is Preset.OFFICIAL
    assert step_experts(steps=case.steps, shift=case.shift, boundary=BOUNDARY.get(model)).count(Expert.HIGH) == high


@pytest.mark.parametrize(("model", "shift"), [(Model.TI2V_5B, 5.0), (Model.T2V_A14B, 3.0), (Model.I2V_A14B, 3.0)])
def test_the_diffusers_defaults_are_those_of_its_pipelines(model: Model, shift: float) -> None:
    case = whole("diffusers-default", model)
    pipeline = WanImageToVideoPipeline if model is Model.I2V_A14B else WanPipeline
    call = {name: parameter.default for name, parameter in inspect.signature(pipeline.__call__).parameters.items()}
    assert (case.width, case.height, case.frames) == (call["width"], call["height"], call["num_frames"])
    assert (case.steps, case.guidance, case.guidance_2) == (call["num_inference_steps"], call["guidance_scale"], call["guidance_scale_2"])
    assert (case.batch, case.shift, case.preset) == (call["num_videos_per_prompt"], shift, Preset.DIFFUSERS_DEFAULT)


def test_mlperf_like_is_twenty_steps_of_720p_with_the_checkpoint_s_shift() -> None:
    case = whole("mlperf-like", Model.T2V_A14B)
    assert (case.width, case.height, case.frames, case.steps, case.shift) == (1280, 720, 81, 20, 3.0)
    assert (case.guidance, case.guidance_2, case.seed, str(case.vae_dtype)) == (4.0, 3.0, 42, "fp32")
    with pytest.raises(ConfigError, match="preset=mlperf-like: there are no such settings for i2v_a14b; there are for t2v_a14b"):
        whole("mlperf-like", Model.I2V_A14B)


@pytest.mark.parametrize(
    "departure",
    ["base.steps=19", "base.shift=12", "base.guidance=5", "base.seed=7", "base.solver=euler", "base.batch=2", "models.t2v_a14b.boundary=0.5"],
)
def test_a_departure_on_the_command_line_takes_the_name_away(departure: str) -> None:
    cases = read_request(["+sweep=mlperf", departure]).sweep.cases
    assert {told(case) for case in cases} == {"custom"}


def test_levers_do_not_take_the_name_away_and_a_miniature_says_that_it_is_one() -> None:
    cases = read_request(["+sweep=mlperf", "base.offload=model", "weights=tiny"]).sweep.cases
    assert {told(case) for case in cases} == {"mlperf-like (miniature)"}


def test_the_published_table_is_at_official_settings_throughout() -> None:
    cases = read_request(["+sweep=official"]).sweep.cases
    assert (len(cases), {case.preset for case in cases}, {case.gpus for case in cases}) == (18, {Preset.OFFICIAL}, {1, 4, 8})
    assert {(case.model, case.width) for case in cases} == {
        (Model.TI2V_5B, 1280),
        *((model, width) for model in BOUNDARY for width in (832, 1280)),
    }
