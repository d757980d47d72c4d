"""What measuring costs: our instrumented loop against the bare pipeline, interleaved, and the price of one stage boundary.

On a miniature, whose steps are far shorter than real ones; `on_gpu` does the same with the real TI2V-5B.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wansweep.case import Case, Model, Task
from wansweep.levers import Weights
from wansweep.plan.geometry import as_run
from wansweep.record import StageKind
from wansweep.sweep import GpuTiming, ModelSource
from wansweep.telemetry.sampling import Sampling
from wansweep.trial import options, pipeline
from wansweep.trial.clock import HostClock, clock_for
from wansweep.trial.generate import generate
from wansweep.trial.probe import Probe
from wansweep.trial.runner import device_here, introduce, probe_here
from wansweep.trial.stages import Stages

PAIRS = 9
STEPS = 6
BOUNDARIES = 2000
# A step that the target is stated for; a miniature's steps are far shorter, so its ratio is an upper bound.
TARGET_STEP_S = 1.0
# A real text length, and one that keeps a miniature's T5 as short as its other stages.
TEXT_TOKENS, FEW_TEXT_TOKENS = 512, 64
GPU_TARGET_PCT = 0.5

MINIATURE = Case(
    model=Model.T2V_A14B,
    task=Task.T2V,
    width=256,
    height=160,
    frames=9,
    steps=STEPS,
    shift=12.0,
    guidance=4.0,
    guidance_2=3.0,
    weights=Weights.TINY,
    prompt="a cat",
    negative_prompt="",
)
# The shortest clip for which sglang published an H200's seconds, with more steps.
REAL = replace(MINIATURE, model=Model.TI2V_5B, width=1280, height=704, frames=17, steps=10, shift=5.0, guidance=5.0, guidance_2=None)


def run() -> None:
    """Print the ratio of instrumented to bare time, and microseconds a boundary."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        boundary_us = _boundary_us(Path(folder))
        ratios, bare_s = _ratios(MINIATURE, Path(folder), pairs=PAIRS, text_tokens=FEW_TEXT_TOKENS)
    print(f"stage boundary: {boundary_us:.0f} us median of {BOUNDARIES} (target under 200)")
    print(_told(f"a miniature of {STEPS} steps and {2 * (2 * STEPS + 4)} boundaries", ratios, bare_s))
    of_a_step = 4 * boundary_us * 1e-6 / TARGET_STEP_S
    print(f"of a step of {TARGET_STEP_S:g} s (4 boundaries): {100 * of_a_step:.3f} % (target under 1 %)")


def on_gpu(weights: str = Weights.RANDOM, *, pairs: int = PAIRS) -> None:
    """Print instrumented over bare time of TI2V-5B 1280x704, 17 frames, 10 steps, with the sampler and the GPU's counters."""
    with tempfile.TemporaryDirectory() as folder:
        ratios, bare_s = _ratios(as_run(replace(REAL, weights=weights)), Path(folder), pairs=pairs, text_tokens=TEXT_TOKENS)
    print(_told(f"TI2V-5B ({weights} weights) on {introduce(0, 1.0).device_name}", ratios, bare_s))
    if weights == Weights.TINY:
        print("a miniature's steps are too short to judge by")
    else:
        print(f"target under {GPU_TARGET_PCT:g} %: {'met' if 100 * (statistics.median(ratios) - 1) < GPU_TARGET_PCT else 'MISSED'}")


def _told(what: str, ratios: Sequence[float], bare_s: float) -> str:
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    spread = f"median {middle:.4f}, quartiles {lower:.4f} to {upper:.4f}"
    return f"instrumented / bare pipeline, {what}: {spread}, n={len(ratios)} interleaved pairs of about {bare_s:.2f} s"


def _boundary_us(folder: Path) -> float:
    """Median microseconds of one edge, journal and counters included."""
    with (folder / "edges.jsonl").open("ab", buffering=0) as journal:
        stages = Stages(model=Model.TI2V_5B, clock=HostClock(), journal=journal, probe=Probe())

        def edges() -> None:
            with stages(StageKind.STEP_INFERENCE, step=0):
                pass

        return 1e6 / 2 * statistics.median(_seconds(edges) for _ in range(BOUNDARIES))


def _ratios(case: Case, folder: Path, *, pairs: int, text_tokens: int) -> tuple[list[float], float]:
    """Instrumented over bare seconds of each pair, the order within a pair alternating, and a bare run's seconds."""
    source = ModelSource(repo="", revision=None, fps=16, boundary=0.875)
    device = device_here()
    pipe = pipeline.load(case, source, pipeline.checkpoint(case, source), device=device)
    placement = options.place(pipe, case, device, scratch=folder)

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
            max_sequence_length=text_tokens,
            output_type="pt",
        )

    def instrumented() -> None:
        with Path(folder / "run.jsonl").open("ab", buffering=0) as journal, probe_here() as probe:
            stages = Stages(model=case.model, clock=clock_for(device, GpuTiming.EVENTS), journal=journal, probe=probe)
            with stages(StageKind.TOTAL_EXECUTION):
                generate(pipe, case, stages, text_tokens=text_tokens, placement=placement)
            stages.settle()

    bare()
    ratios, bare_s = [], []
    for pair in range(pairs):
        # The sampler runs beside both halves' twin only: it is part of what is measured.
        halves = [("bare", bare), ("instrumented", instrumented)]
        took = {
            name: _with_sampler(folder, half) if name == "instrumented" else _seconds(half) for name, half in halves[:: 1 if pair % 2 else -1]
        }
        ratios.append(took["instrumented"] / took["bare"])
        bare_s.append(took["bare"])
    return ratios, statistics.median(bare_s)


def _with_sampler(folder: Path, work: Callable[[], None]) -> float:
    gpus = [uuid] if (uuid := introduce(0, 1.0).device_uuid) else []
    with Sampling(out=folder / "samples.jsonl", gpus=gpus, pids=[os.getpid()]):
        return _seconds(work)


def _seconds(work: Callable[[], None]) -> float:
    begin_s = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin_s
