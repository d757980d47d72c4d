"""The engine: our loop against diffusers' own, bit for bit, and what is read back from a loaded pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload

from tests.conftest import make_a14b, make_case
from tests.runs import ROOT
from wansweep.cache import cache_dir
from wansweep.case import Case, Model, Task
from wansweep.levers import Dtype, Offload, Solver
from wansweep.plan.geometry import as_run
from wansweep.record import Expert, Outcome, Stage, StageKind
from wansweep.sweep import Isolation, ModelSource, Procedure
from wansweep.trial import options, pipeline
from wansweep.trial.clock import HostClock
from wansweep.trial.generate import decode, expert_schedule, generate, still
from wansweep.trial.invalid import Invalid
from wansweep.trial.runner import run_rank
from wansweep.trial.stages import Stages, read_journal
from wansweep.trial.task import Seat
from wansweep.trial.task import Task as RankTask
from wansweep.trial.tiny import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

I2V_A14B = {"model": Model.I2V_A14B, "task": Task.I2V, "shift": 5.0, "guidance": 3.5, "guidance_2": 3.5}
CASES = {
    "ti2v_5b text": make_case(),
    "ti2v_5b image": make_case(task=Task.I2V),
    "t2v_a14b": make_a14b(),
    "i2v_a14b": make_a14b(**I2V_A14B),
    "t2v_a14b without CFG": make_a14b(guidance=1.0, guidance_2=1.0),
    "t2v_a14b with CFG of 1 in one expert": make_a14b(guidance_2=1.0),
    "t2v_a14b fp32": make_a14b(dtype=Dtype.FP32),
    "t2v_a14b dpmpp": make_a14b(solver=Solver.DPMPP),
    "t2v_a14b euler": make_a14b(solver=Solver.EULER),
    "ti2v_5b text euler": make_case(solver=Solver.EULER),
    "ti2v_5b text, two videos": make_case(batch=2),
    "ti2v_5b image, two videos": make_case(task=Task.I2V, batch=2),
    "t2v_a14b, two videos": make_a14b(batch=2),
    "i2v_a14b, two videos": make_a14b(**I2V_A14B, batch=2),
}
BOUNDARY = {Model.TI2V_5B: None, Model.T2V_A14B: 0.875, Model.I2V_A14B: 0.9}
TEXT_TOKENS = 32


def source(case: Case) -> ModelSource:
    return ModelSource(repo="none", revision=None, fps=16, boundary=BOUNDARY[case.model])


def loaded(case: Case) -> pipeline.WanPipe:
    return pipeline.load(case, source(case), pipeline.checkpoint(case, source(case)))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_our_loop_is_bit_equal_to_the_pipelines_own(case: Case) -> None:
    case = as_run(case)
    pipe = loaded(case)
    ours, video = generate(pipe, case, Stages(model=case.model, clock=HostClock()), text_tokens=TEXT_TOKENS)
    call = {
        "prompt": case.prompt,
        "negative_prompt": case.negative_prompt,
        "height": case.height,
        "width": case.width,
        "num_frames": case.frames,
        "num_inference_steps": case.steps,
        "guidance_scale": case.guidance,
        "guidance_scale_2": case.guidance_2,
        "num_videos_per_prompt": case.batch,
        "max_sequence_length": TEXT_TOKENS,
        "output_type": "latent",
        "return_dict": False,
    }
    if case.task is Task.I2V:
        call["image"] = still(case)
    theirs = pipe(generator=torch.Generator("cpu").manual_seed(case.seed), **call)[0]
    assert torch.equal(ours, theirs)
    assert torch.isfinite(ours).all()
    pixels = pipe(generator=torch.Generator("cpu").manual_seed(case.seed), **{**call, "output_type": "pt"})[0]
    assert torch.equal(video, pixels)
    assert video.shape == (case.batch, case.frames, 3, case.height, case.width)
    assert torch.equal(decode(pipe, theirs), pixels)


def test_a_seed_decides_the_video() -> None:
    case = as_run(make_case(steps=2))
    pipe = loaded(case)
    first, again, other = (
        generate(pipe, c, Stages(model=c.model, clock=HostClock()), text_tokens=TEXT_TOKENS)[0] for c in (case, case, replace(case, seed=7))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("offload", [Offload.MODEL, Offload.GROUP_BLOCK, Offload.GROUP_LEAF])
@pytest.mark.parametrize("name", ["ti2v_5b image", "t2v_a14b"])
def test_offload_changes_nothing_but_the_place_of_weights(name: str, offload: Offload) -> None:
    case = as_run(replace(CASES[name], steps=3))
    plain = loaded(case)
    expected, _ = generate(plain, case, Stages(model=case.model, clock=HostClock()), text_tokens=TEXT_TOKENS)
    pipe = loaded(case)
    options.apply_offload(pipe, replace(case, offload=offload), torch.device("cpu"))
    options.check_offload(replace(case, offload=offload), options.hooks(pipe))
    found, _ = generate(pipe, case, Stages(model=case.model, clock=HostClock()), text_tokens=TEXT_TOKENS)
    assert torch.equal(found, expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_offload_that_needs_an_accelerator_is_invalid_with_diffusers_own_reason() -> None:
    case = replace(CASES["t2v_a14b"], offload=Offload.SEQUENTIAL)
    with pytest.raises(Invalid, match="requires accelerator, but not found"):
        options.apply_offload(loaded(case), case, torch.device("cpu"))


@pytest.mark.parametrize("offload", [Offload.MODEL, Offload.GROUP_BLOCK, Offload.GROUP_LEAF, Offload.SEQUENTIAL])
def test_an_offload_mode_that_left_no_hook_is_invalid(offload: Offload) -> None:
    pipe = loaded(CASES["t2v_a14b"])
    with pytest.raises(Invalid, match=f"declared offload={offload}.*resolved no hook"):
        options.check_offload(replace(CASES["t2v_a14b"], offload=offload), options.hooks(pipe))


def test_an_offload_mode_that_missed_one_expert_is_invalid() -> None:
    pipe = loaded(CASES["t2v_a14b"])
    pipe.transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    case = replace(CASES["t2v_a14b"], offload=Offload.GROUP_LEAF)
    with pytest.raises(Invalid, match="resolved no hook on the transformer_2"):
        options.check_offload(case, options.hooks(pipe))


def test_sequential_offload_is_recognised_where_accelerate_chains_its_hooks() -> None:
    # The transformer has weights of its own beside its blocks', so its hook is a chain; sequential offload itself needs an accelerator.
    pipe = loaded(CASES["t2v_a14b"])
    for expert in (pipe.transformer, pipe.transformer_2):
        cpu_offload(expert, torch.device("cpu"), offload_buffers=True)
    assert set(options.hooks(pipe).values()) == {"AlignDevicesHook"}
    options.check_offload(replace(CASES["t2v_a14b"], offload=Offload.SEQUENTIAL), options.hooks(pipe))


def test_an_offload_hook_that_nobody_declared_is_invalid() -> None:
    pipe = loaded(CASES["t2v_a14b"])
    pipe.enable_model_cpu_offload(device="cpu")
    with pytest.raises(Invalid, match="declared offload=none"):
        options.check_offload(CASES["t2v_a14b"], options.hooks(pipe))


def test_weights_are_loaded_in_the_declared_format_with_the_vae_in_fp32() -> None:
    pipe = loaded(CASES["t2v_a14b"])
    assert options.dtypes(pipe) == {"vae": "float32", "text_encoder": "bfloat16", "transformer": "bfloat16", "transformer_2": "bfloat16"}
    assert not any(p.requires_grad for module in pipeline.modules(pipe).values() for p in module.parameters())
    assert pipe.scheduler.config.flow_shift == 12.0


def test_the_official_shift_gives_26_of_40_steps_to_the_high_noise_expert() -> None:
    pipe = loaded(CASES["t2v_a14b"])
    pipe.scheduler.set_timesteps(40)
    assert expert_schedule(pipe, pipe.scheduler.timesteps.tolist()).count(Expert.HIGH) == 26


def test_a_miniature_is_built_once_and_then_found() -> None:
    first = tiny_checkpoint(Model.TI2V_5B, boundary=None)
    stamp = (first / "model_index.json").stat().st_mtime_ns
    assert tiny_checkpoint(Model.TI2V_5B, boundary=None) == first
    assert (first / "model_index.json").stat().st_mtime_ns == stamp
    assert not list(cache_dir().glob("*/.*"))


PROCEDURE = Procedure(repeats=1, timeout_s=60, isolation=Isolation.PROCESS, keep_video=True)


def run(case: Case, tmp_path: Path, **procedure: object):
    task = RankTask(case=case, source=source(case), origin_s=0.0, scratch=tmp_path, procedure=replace(PROCEDURE, **procedure))
    return task, run_rank(task, Seat(rank=0, world=1, rendezvous="", cores=1))


def test_a_local_folder_is_a_source_of_weights(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    case = make_a14b(width=128, height=64, frames=5, steps=2)
    loaded(case).save_pretrained(folder)
    task, ending = run(replace(case, weights=str(folder)), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
    assert ending.resolved is not None
    assert (ending.resolved.width, ending.resolved.height, ending.resolved.frames) == (128, 64, 5)
    assert task.video.stat().st_size > 0


def test_a_hub_that_cannot_be_reached_is_a_reason_and_no_traceback(tmp_path: Path) -> None:
    _, ending = run(make_case(weights="hub"), tmp_path)
    assert ending.outcome is Outcome.CRASH
    assert ending.reason.startswith("weights=hub: none at revision main is not in the cache")


def test_a_rank_leaves_every_stage_of_the_contract_one_after_the_other(tmp_path: Path) -> None:
    stages = stages_of_a_run(tmp_path)
    steps = [f"Step_{i}_{part}" for i in range(12) for part in ("Loading", "Inference")]
    assert list(stages) == ["Total_Execution", "Model_Initialization", "T5_Encoding", "I2V_Preprocess", *steps, "VAE_Decoding", "Save"]
    total, save = stages["Total_Execution"], stages["Save"]
    assert save.start_s >= total.start_s + (total.duration_s or 0)
    ends = [stage.start_s + (stage.duration_s or 0) for stage in leaves(stages)]
    assert all(end <= after.start_s for end, after in zip(ends, leaves(stages)[1:], strict=False))


@pytest.mark.alone
def test_almost_no_time_is_outside_the_stages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.trial.outside", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout.splitlines()[-1]) < 0.01


def stages_of_a_run(folder: Path) -> dict[str, Stage]:
    task, ending = run(make_a14b(**I2V_A14B, steps=12), folder)
    assert ending.outcome is Outcome.OK
    return {stage.name: stage for stage in read_journal(task.journal(0))}


def leaves(stages: dict[str, Stage]) -> list[Stage]:
    return [stage for stage in stages.values() if stage.kind not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)]


def test_what_was_in_force_is_read_back(tmp_path: Path) -> None:
    _, ending = run(replace(CASES["t2v_a14b"], offload=Offload.GROUP_LEAF), tmp_path)
    ran = ending.resolved
    assert ran is not None
    assert set(ran.hooks) == {"vae", "text_encoder", "transformer", "transformer_2"}
    assert (ran.switch_step, len(ran.timesteps), ran.attention, ran.parallel) == (3, 4, "native", "none")
    assert len(ran.latents_sha256) == 64
    json.dumps(ran.timesteps)


def test_running_out_of_memory_is_an_outcome_with_the_stages_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("wansweep.trial.generate.decode", exhausted)
    task, ending = run(make_case(steps=1), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OOM, "CUDA out of memory. Tried to allocate 20.00 GiB")
    open_stages = [stage.name for stage in read_journal(task.journal(0)) if stage.duration_s is None]
    assert open_stages == ["Total_Execution", "VAE_Decoding"]


@pytest.mark.alone
def test_warm_up_generations_are_kept_apart_from_the_measured_one(tmp_path: Path) -> None:
    (cold, warm) = (tmp_path / "cold", tmp_path / "warm")
    cold.mkdir()
    warm.mkdir()
    _, without = run(make_a14b(steps=2), cold)
    task, ending = run(make_a14b(steps=2), warm, warmups=2)
    assert (len(without.warmup_s), len(ending.warmup_s)) == (0, 2)
    assert ending.resolved is not None
    assert without.resolved is not None
    assert ending.resolved.latents_sha256 == without.resolved.latents_sha256
    stages = {stage.name: stage for stage in read_journal(task.journal(0))}
    total = stages["Total_Execution"]
    # And the watching of levers, whose beginning is no part of a run either.
    assert total.paused_s == pytest.approx(sum(ending.warmup_s), abs=0.1)
    assert sum(stage.duration_s or 0 for stage in leaves(stages)) == pytest.approx(total.duration_s, rel=0.05)
    assert sum(name == "T5_Encoding" for name in stages) == 1


def test_the_state_of_the_page_cache_before_loading_is_told(tmp_path: Path) -> None:
    _, ending = run(make_case(steps=1), tmp_path)
    assert ending.weights_cached is not None
    assert ending.weights_cached.value == pytest.approx(1.0, abs=0.05)  # built or read a moment ago


@pytest.mark.alone
def test_every_stage_has_its_counters(tmp_path: Path) -> None:
    task, _ = run(make_case(steps=4), tmp_path)
    for stage in read_journal(task.journal(0)):
        assert stage.figures["cpu_s"].value is not None
        memory = stage.figures["host_rss_bytes"]
        assert (memory.value or 0) > 100e6 or (memory.value, memory.why) == (None, "too_short")
        assert stage.duration_s is not None
        if not 0.0025 < stage.duration_s < 0.01:  # the probe's clock and the stage's, each with its own marks, part at 5 ms
            assert (memory.why == "too_short") is (stage.duration_s < 0.005), (stage.name, stage.duration_s)
        for name in ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "pinned_bytes", "energy_j"):
            figure = stage.figures[name]
            if torch.cuda.is_available():
                assert (figure.value is None) == (figure.why is not None), name
            else:
                assert (figure.value, figure.why) == (None, "unsupported"), name  # on a CPU: null, never 0
