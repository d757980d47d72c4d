"""Where a trial is, from the files that its ranks and its sampler leave."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.conftest import make_case
from tests.makers import make_stage
from wansweep.record import Stage, StageKind
from wansweep.schedule.progress import PROGRESS, gather, left_s
from wansweep.sweep import Isolation, ModelSource, Procedure
from wansweep.telemetry.tail import TAIL_BYTES, newest
from wansweep.trial.stages import _STAGE
from wansweep.trial.task import Task

CASE = make_case(label="one", steps=4)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    procedure = Procedure(repeats=1, timeout_s=1, isolation=Isolation.PROCESS, keep_video=False)
    source = ModelSource(repo="none", revision=None, fps=16, boundary=None)
    return Task(case=CASE, source=source, origin_s=time.perf_counter(), scratch=tmp_path, procedure=procedure)


def journal(task: Task, *stages: Stage) -> None:
    task.journal(0).write_bytes(b"".join(_STAGE.dump_json(stage) + b"\n" for stage in stages))


def test_before_its_first_stage_a_trial_is_starting(task: Task) -> None:
    now = gather(task, trial=2, gpus={}, pids={})
    assert (now.label, now.trial, now.doing, now.kind, now.step, now.step_s) == ("one", 2, "starting", None, None, None)


def test_the_innermost_open_stage_and_the_last_whole_step_are_told(task: Task) -> None:
    journal(
        task,
        make_stage(CASE, StageKind.TOTAL_EXECUTION, 0, None),
        make_stage(CASE, StageKind.STEP_INFERENCE, 1, 0.75, step=0),
        make_stage(CASE, StageKind.STEP_LOADING, 2, 0.0, step=1),
        make_stage(CASE, StageKind.STEP_INFERENCE, 2, None, step=1),
    )
    now = gather(task, trial=0, gpus={}, pids={})
    assert (now.doing, now.kind, now.step, now.steps, now.step_s) == ("Step_1_Inference", StageKind.STEP_INFERENCE, 1, 4, 0.75)
    assert PROGRESS.validate_json(PROGRESS.dump_json(now)) == now


def test_each_rank_has_the_readings_of_its_own_gpu_and_process(task: Task) -> None:
    lines = [
        {"start": {}},
        {"t": 1, "d": "GPU-a", "v": {"power_w": 100.0, "sm_active_pct": 1.0}},
        {"t": 2, "d": "GPU-b", "v": {"power_w": 200.0}, "n": {"sm_active_pct": "no_permission"}},
        {"t": 3, "d": "GPU-a", "v": {"power_w": 150.0}},
        {"t": 3, "d": "host:11", "v": {"host_rss_bytes": 7.0}},
    ]
    task.samples.write_text("\n".join(map(json.dumps, lines)) + '\n{"t": 4, "d": "GPU-a", "v": {"pow')
    now = gather(task, trial=0, gpus={0: "GPU-a", 1: "GPU-b", 2: None}, pids={0: 11, 1: 12, 2: 13})
    assert now.readings == {0: {"power_w": 150.0, "sm_active_pct": 1.0, "host_rss_bytes": 7.0}, 1: {"power_w": 200.0}, 2: {}}


def test_only_the_end_of_a_long_trace_is_read(tmp_path: Path) -> None:
    trace = tmp_path / "samples.jsonl"
    old = json.dumps({"t": 0, "d": "GPU-a", "v": {"temperature_c": 1.0}})
    trace.write_text(old + "\n" + (json.dumps({"t": 1, "d": "GPU-a", "v": {"power_w": 5.0}}) + "\n") * 20_000)
    assert trace.stat().st_size > 2 * TAIL_BYTES
    assert newest(trace) == {("GPU-a", "power_w"): 5.0}


def test_a_trace_that_is_not_there_yet_has_no_readings(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == {}


def test_time_left_is_told_by_the_pace_so_far() -> None:
    assert left_s(ran_s=30, done=3, total=10) == 70
    assert left_s(ran_s=30, done=0, total=10) is None
