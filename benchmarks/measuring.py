"""What measuring costs: our instrumented loop against the bare pipeline, interleaved, and the price of one stage boundary."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from wansweep.case import Case, Model, Task
from wansweep.record import StageKind
from wansweep.sweep import ModelSource
from wansweep.telemetry.sampling import Sampling
from wansweep.trial import pipeline
from wansweep.trial.clock import HostClock
from wansweep.trial.generate import generate
from wansweep.trial.probe import Probe
from wansweep.trial.stages import Stages

PAIRS = 9
STEPS = 6
BOUNDARIES = 2000
# A step that the target is stated for; a miniature's steps are far shorter, so its ratio is an upper bound.
TARGET_STEP_S = 1.0
TEXT_TOKENS = 64


def run() -> None:
    """Print the ratio of instrumented to bare time, and microseconds a boundary."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        boundary_us = _boundary_us(Path(folder))
        ratios, bare_s = _ratios(Path(folder))
    quartiles = statistics.quantiles(ratios, n=4)
    edges = 2 * (2 * STEPS + 4)
    print(f"stage boundary: {boundary_us:.0f} us median of {BOUNDARIES} (target under 200)")
    print(
        f"instrumented / bare pipeline, a miniature of {STEPS} steps and {edges} boundaries: median {statistics.median(ratios):.4f}, "
        f"quartiles {quartiles[0]:.4f} to {quartiles[2]:.4f}, n={PAIRS} interleaved pairs of about {bare_s:.2f} s"
    )
    of_a_step = 4 * boundary_us * 1e-6 / TARGET_STEP_S
    print(f"of a step of {TARGET_STEP_S:g} s (4 boundaries): {100 * of_a_step:.3f} % (target under 1 %)")


def _boundary_us(folder: Path) -> float:
    """Median microseconds of one edge, journal and counters included."""
    with (folder / "edges.jsonl").open("ab", buffering=0) as journal:
        stages = Stages(model=Model.TI2V_5B, clock=HostClock(), journal=journal, probe=Probe())

        def edges() -> None:
            with stages(StageKind.STEP_INFERENCE, step=0):
                pass

        return 1e6 / 2 * statistics.median(_seconds(edges) for _ in range(BOUNDARIES))


def _ratios(folder: Path) -> tuple[list[float], float]:
    """Instrumented over bare seconds of each pair, the order within a pair alternating, and a bare run's seconds."""
    case = Case(
        model=Model.T2V_A14B,
        task=Task.T2V,
        width=256,
        height=160,
        frames=9,
        steps=STEPS,
        shift=12.0,
        guidance=4.0,
        guidance_2=3.0,
        weights="tiny",
        prompt="a cat",
        negative_prompt="",
    )
    source = ModelSource(repo="", revision=None, fps=16, boundary=0.875)
    pipe = pipeline.load(case, source, pipeline.checkpoint(case, source))

    def bare() -> None:
        pipe(
            prompt=case.prompt,
            negative_prompt=case.negative_prompt,
            width=case.width,
            height=case.height,
            num_frames=case.frames,
            num_inference_steps=case.steps,
            guidance_scale=case.guidance,
            guidance_scale_2=case.guidance_2,
            generator=torch.Generator("cpu").manual_seed(case.seed),
            max_sequence_length=TEXT_TOKENS,
            output_type="pt",
        )

    def instrumented() -> None:
        with Path(folder / "run.jsonl").open("ab", buffering=0) as journal:
            stages = Stages(model=case.model, clock=HostClock(), journal=journal, probe=Probe())
            with stages(StageKind.TOTAL_EXECUTION):
                generate(pipe, case, stages, text_tokens=TEXT_TOKENS)
            stages.settle()

    bare()
    ratios, bare_s = [], []
    for pair in range(PAIRS):
        # The sampler runs beside both halves' twin only: it is part of what is measured.
        halves = [("bare", bare), ("instrumented", instrumented)]
        took = {
            name: _with_sampler(folder, half) if name == "instrumented" else _seconds(half) for name, half in halves[:: 1 if pair % 2 else -1]
        }
        ratios.append(took["instrumented"] / took["bare"])
        bare_s.append(took["bare"])
    return ratios, statistics.median(bare_s)


def _with_sampler(folder: Path, work: Callable[[], None]) -> float:
    import os

    with Sampling(out=folder / "samples.jsonl", pids=[os.getpid()]):
        return _seconds(work)


def _seconds(work: Callable[[], None]) -> float:
    begin_s = time.perf_counter()
    work()
    return time.perf_counter() - begin_s
