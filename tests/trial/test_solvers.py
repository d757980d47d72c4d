"""What is computed and not how: solver, batch and guidance, each seen to be in force and caught when it is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import PROCEDURE, loaded, source
from tests.trial.test_levers import CACHES
from tests.trial.trials import EIGHT_STEPS, Runs
from wansweep.levers import Compile, Solver
from wansweep.plan.flops import solver_timesteps
from wansweep.record import Outcome
from wansweep.trial import generate, runner, solvers
from wansweep.trial.invalid import Invalid
from wansweep.trial.task import Seat, Task

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize(
    ("solver", "scheduler", "first"),
    [
        (Solver.UNIPC, "UniPCMultistepScheduler", 999.0),
        (Solver.DPMPP, "DPMSolverMultistepScheduler", 999.0),
        (Solver.EULER, "FlowMatchEulerDiscreteScheduler", 1000.0),
    ],
)
def test_each_solver_runs_its_own_schedule_at_the_declared_shift(runs: Runs, solver: Solver, scheduler: str, first: float) -> None:
    _, resolved = runs.latents(make_a14b(solver=solver))
    assert (resolved.solver, resolved.shift, resolved.timesteps[0], len(resolved.timesteps)) == (scheduler, 12.0, first, 4)
    assert resolved.switch_step == 3
    assert resolved.timesteps == pytest.approx(solver_timesteps(steps=4, shift=12.0, solver=solver))


def test_solvers_end_near_one_another_and_not_at_the_same_video(runs: Runs) -> None:
    unipc, dpmpp, euler = (runs.latents(make_a14b(**EIGHT_STEPS, solver=solver))[0] for solver in Solver)
    assert 0 < float((unipc - dpmpp).abs().max()) < 0.5
    assert 0 < float((unipc - euler).abs().max()) < 0.5


def test_a_solver_that_was_not_put_in_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "apply", lambda *_: None)
    assert runs.trial(make_a14b(solver=Solver.DPMPP)).reason == "declared solver=dpmpp, resolved unipc"
    assert runs.trial(make_a14b()).reason == "declared shift=12.0, resolved 3.0"


def test_a_schedule_of_other_steps_than_declared_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' Euler as it is shifts twice, and would give the high-noise expert 10 of 16 steps."""
    monkeypatch.delattr(solvers.WanEulerScheduler, "set_timesteps")
    ending = runs.trial(make_a14b(solver=Solver.EULER, steps=16))
    asked = "solver=euler, steps=16, shift=12 (16 steps, 11 of them with high noise)"
    assert ending.reason == f"declared {asked}, resolved 16 steps, 10 of them with high noise"


def test_a_checkpoint_with_another_boundary_is_invalid() -> None:
    with pytest.raises(Invalid, match=r"declared models\.t2v_a14b\.boundary=0\.9, resolved 0\.875 in the checkpoint"):
        solvers.check(loaded(make_a14b()), make_a14b(), 0.9)


@pytest.mark.parametrize("lever", [lever for lever, _ in CACHES.values()], ids=CACHES.keys())
def test_a_cache_skips_in_a_batch_too(runs: Runs, lever: dict[str, object]) -> None:
    latents, resolved = runs.latents(make_case(steps=8, batch=2, **lever))
    share = resolved.block_computations["transformer"]
    assert (len(latents), resolved.batch, share.of) == (2, 2, 16)
    assert share.count < 16


def test_every_video_of_a_batch_is_saved(tmp_path: Path) -> None:
    case = make_case(steps=1, batch=2)
    task = Task(case=case, source=source(case), origin_s=0.0, scratch=tmp_path, procedure=PROCEDURE)
    assert runner.run_rank(task, Seat(rank=0, world=1, rendezvous="", cores=1)).outcome is Outcome.OK
    assert sorted(file.name for file in tmp_path.glob("*.mp4")) == ["video-1.mp4", "video.mp4"]


def test_slices_decode_a_batch_one_video_at_a_time_and_do_not_touch_the_latents(runs: Runs) -> None:
    whole, plain = runs.latents(make_a14b(batch=2))
    sliced, resolved = runs.latents(make_a14b(batch=2, vae_slicing=True))
    assert torch.equal(whole, sliced)
    assert (plain.vae_decodes, resolved.vae_decodes, resolved.vae) == (1, 2, "slices of 1")


def test_slices_that_were_not_made_are_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoencoderKLWan, "decode", lambda self, z, return_dict: (self._decode(z).sample,))
    ending = runs.trial(make_a14b(batch=2, vae_slicing=True))
    assert ending.reason == "declared vae_slicing=True, batch=2, resolved 1 decodes"


def test_a_batch_compiles_one_graph(runs: Runs) -> None:
    _, resolved = runs.latents(make_case(batch=2, compile=Compile.REGIONAL, compile_backend="aot_eager"))
    assert (resolved.batch, resolved.graphs, resolved.forwards) == (2, 1, None)


def test_a_batch_of_one_video_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = runner.generate
    monkeypatch.setattr(runner, "generate", lambda pipe, case, *args, **kwargs: plain(pipe, replace(case, batch=1), *args, **kwargs))
    assert runs.trial(make_case(batch=2)).reason == "declared batch=2, resolved 1"


@pytest.mark.parametrize(("guidance", "guidance_2", "forwards"), [(4.0, 3.0, 2), (4.0, 1.0, 2), (1.0, 1.0, 1)])
def test_the_forwards_of_a_step_are_counted(runs: Runs, guidance: float, guidance_2: float, forwards: int) -> None:
    _, resolved = runs.latents(make_a14b(guidance=guidance, guidance_2=guidance_2))
    assert resolved.forwards == forwards


def test_guidance_that_ran_no_unconditional_forward_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = generate.encode
    monkeypatch.setattr(generate, "encode", lambda *args, **kwargs: replace(plain(*args, **kwargs), negative_BTD=None))
    ending = runs.trial(make_a14b())
    assert ending.reason == "declared guidance=4, 2 forward(s) a step, resolved 4 forwards in 4 steps"
