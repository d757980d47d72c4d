"""``weights=random``: the shapes and formats of a loaded checkpoint, values that compute, and no memory beside the weights."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import I2V_A14B, TEXT_TOKENS, run, source
from wansweep.case import Case, Model, Task
from wansweep.levers import Dtype, Offload
from wansweep.plan.architecture import ARCHITECTURES, Architecture
from wansweep.plan.geometry import as_run
from wansweep.record import Outcome
from wansweep.trial import networks, pipeline, random_weights
from wansweep.trial.clock import HostClock
from wansweep.trial.generate import generate
from wansweep.trial.runner import device_here
from wansweep.trial.stages import Stages, read_journal
from wansweep.trial.tiny import miniature

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CPU = torch.device("cpu")
CASES = {
    "ti2v_5b text": make_case(steps=2),
    "ti2v_5b image": make_case(task=Task.I2V, steps=2),
    "t2v_a14b": make_a14b(steps=4),
    "i2v_a14b": make_a14b(**I2V_A14B, steps=4),
}


def small(model: Model) -> Architecture:
    """The family at small widths, with the real statistics of its latents."""
    real, mini = ARCHITECTURES[model], miniature(model)
    return replace(mini, vae=replace(mini.vae, latents_mean=real.vae.latents_mean, latents_std=real.vae.latents_std))


@pytest.fixture(autouse=True)
def _small_architectures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "gpu" not in request.keywords:
        for model in Model:
            monkeypatch.setitem(ARCHITECTURES, model, small(model))


def at_random(case: Case) -> pipeline.WanPipe:
    case = replace(case, weights="random")
    return pipeline.load(case, source(case), pipeline.checkpoint(case, source(case)))


def from_disk(case: Case, folder: Path) -> pipeline.WanPipe:
    """The same configs, saved and loaded by diffusers itself."""
    networks.build(ARCHITECTURES[case.model], case.task, boundary=source(case).boundary).save_pretrained(folder)
    dtypes = {"default": {Dtype.BF16: torch.bfloat16, Dtype.FP16: torch.float16, Dtype.FP32: torch.float32}[case.dtype], "vae": torch.float32}
    return networks.pipeline_class(case.task).from_pretrained(folder, dtype=dtypes)


def tensors(module: torch.nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    named = {**module.state_dict(), **dict(module.named_buffers())}
    return {name: (tensor.shape, tensor.dtype) for name, tensor in named.items()}


def settings(module: torch.nn.Module) -> dict[str, object]:
    """A component's config without what saving adds."""
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    return {
        key: json.loads(json.dumps(value)) for key, value in config.items() if not key.startswith("_") and key not in ("dtype", "architectures")
    }


@pytest.mark.parametrize("dtype", Dtype)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_random_weights_have_the_classes_names_shapes_and_formats_of_a_loaded_checkpoint(case: Case, dtype: Dtype, tmp_path: Path) -> None:
    case = replace(case, dtype=dtype)
    ours, theirs = at_random(case), from_disk(case, tmp_path)
    assert type(ours) is type(theirs)
    assert {name: type(part) for name, part in ours.components.items()} == {name: type(part) for name, part in theirs.components.items()}
    for name, module in pipeline.modules(theirs).items():
        assert tensors(ours.components[name]) == tensors(module), name
        assert ours.components[name].dtype == module.dtype
        assert settings(ours.components[name]) == settings(module)
    assert (ours.config.boundary_ratio, ours.config.expand_timesteps) == (theirs.config.boundary_ratio, theirs.config.expand_timesteps)
    assert ours.scheduler.config.flow_shift == case.shift
    assert not any(p.requires_grad for module in pipeline.modules(ours).values() for p in module.parameters())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_random_weights_give_a_finite_video_that_moves(case: Case) -> None:
    case = as_run(case)
    latents, video = generate(at_random(case), case, Stages(model=case.model, clock=HostClock()), text_tokens=TEXT_TOKENS)
    assert torch.isfinite(latents).all()
    assert torch.isfinite(video).all()
    assert latents.std() > 0.1
    assert video.std() > 1e-3


def test_values_are_spread_as_they_should_be_and_no_matrix_is_zero() -> None:
    pipe = at_random(CASES["t2v_a14b"])
    for component, module in pipeline.modules(pipe).items():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                assert (parameter == 0).all(), (component, name)
            elif parameter.ndim == 1 or name.endswith("gamma"):
                assert (parameter == 1).all(), (component, name)
            elif parameter.numel() > 1000:
                assert parameter.float().std().item() == pytest.approx(random_weights.STD, rel=0.2), (component, name)
    high, low = pipe.transformer.state_dict(), pipe.transformer_2.state_dict()
    assert not any(torch.equal(high[name], low[name]) for name in high if name.endswith("to_q.weight"))


def test_a_large_matrix_repeats_no_row() -> None:
    matrix = random_weights._Values(CPU, 1).fill("weight", torch.empty(3000, 1024))
    assert len(torch.unique(matrix, dim=0)) == 3000
    assert matrix.std().item() == pytest.approx(random_weights.STD, rel=0.01)


def test_a_seed_decides_the_weights() -> None:
    first, again = (at_random(CASES["ti2v_5b text"]).transformer.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_rotary_tables_are_those_of_a_freshly_built_transformer() -> None:
    case = CASES["t2v_a14b"]
    fresh, pipe = networks.transformer(ARCHITECTURES[case.model].transformer), at_random(case)
    for expert in (pipe.transformer, pipe.transformer_2):
        assert torch.equal(expert.rope.freqs_cos, fresh.rope.freqs_cos)
        assert torch.equal(expert.rope.freqs_sin, fresh.rope.freqs_sin)


def test_the_text_encoders_embedding_keeps_its_two_names_and_one_memory() -> None:
    encoder = at_random(CASES["ti2v_5b text"]).text_encoder
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight


@pytest.mark.alone
def test_a_trial_on_random_weights_has_a_record_that_says_so(tmp_path: Path) -> None:
    task, ending = run(make_case(weights="random", width=128, height=64, frames=5, steps=2), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
    assert ending.resolved is not None
    assert (ending.resolved.weights, ending.resolved.revision, ending.resolved.converted) == ("random", None, None)
    assert ending.weights_cached is not None
    assert (ending.weights_cached.value, ending.weights_cached.why) == (None, "not_applicable")
    loading = next(stage for stage in read_journal(task.journal(0)) if stage.name == "Model_Initialization")
    parts = {name: loading.figures[name] for name in ("open_s", "read_s", "cast_s", "fill_s", "h2d_s")}
    assert (parts["read_s"].why, parts["cast_s"].why) == ("not_applicable", "not_applicable")
    assert sum(part.value or 0 for part in parts.values()) == pytest.approx(loading.duration_s, rel=0.05, abs=0.03)  # a time slice


@pytest.mark.parametrize(("offload", "device"), [(Offload.NONE, "cuda"), (Offload.MODEL, "cpu"), (Offload.GROUP_LEAF, "cpu")])
def test_weights_that_wait_on_the_host_are_made_there(offload: Offload, device: str) -> None:
    assert pipeline.home(make_case(offload=offload), torch.device("cuda")) == torch.device(device)


@pytest.mark.gpu
def test_the_real_5b_is_made_on_the_gpu_in_seconds_and_without_host_memory(tmp_path: Path) -> None:
    import psutil

    case = make_case(weights="random")
    before, begin_s = psutil.Process().memory_info().rss, time.perf_counter()
    pipe = pipeline.load(case, source(case), pipeline.checkpoint(case, source(case)), device=device_here())
    torch.cuda.synchronize()
    assert time.perf_counter() - begin_s < 30
    assert psutil.Process().memory_info().rss - before < 4e9
    assert sum(p.numel() for p in pipe.transformer.parameters()) == 4_999_787_712
    assert all(tensor.is_cuda for module in pipeline.modules(pipe).values() for tensor in (*module.parameters(), *module.buffers()))
    del pipe
    torch.cuda.empty_cache()
    _, ending = run(make_case(weights="random", frames=5, steps=2), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
