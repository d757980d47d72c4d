"""The same trials on a CUDA device; skipped, visibly, without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import make_a14b
from tests.trial.test_generate import run
from wansweep.levers import Offload
from wansweep.record import Outcome, StageKind, Timing
from wansweep.sweep import GpuTiming
from wansweep.trial.runner import introduce
from wansweep.trial.stages import read_journal

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]

CASE = make_a14b(steps=6)


@pytest.mark.parametrize("offload", list(Offload))
def test_every_offload_mode_runs_and_its_memory_is_measured(offload: Offload, tmp_path: Path) -> None:
    task, ending = run(replace(CASE, offload=offload), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
    assert ending.timing is Timing.EVENTS
    total = read_journal(task.journal(0))[0]
    assert (total.figures["peak_allocated_bytes"].value or 0) > 1e6
    assert (total.figures["device_used_bytes"].value or 0) > (total.figures["peak_reserved_bytes"].value or 0)


@pytest.mark.parametrize("timing", list(GpuTiming))
def test_the_stages_of_either_clock_add_up_to_the_total(timing: GpuTiming, tmp_path: Path) -> None:
    task, ending = run(replace(CASE, width=2560, height=1440), tmp_path, timing=timing, warmups=1)
    assert ending.outcome is Outcome.OK
    stages = {stage.name: stage for stage in read_journal(task.journal(0))}
    leaves = [stage for stage in stages.values() if stage.kind not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)]
    assert sum(stage.duration_s or 0 for stage in leaves) == pytest.approx(stages["Total_Execution"].duration_s, rel=0.05)


def test_a_rank_knows_its_gpu_by_the_uuid_that_nvml_gives() -> None:
    from wansweep.telemetry import nvml

    facts = introduce(0, 1.0)
    with nvml.library() as failed:
        assert failed is None
        assert facts.device_uuid in nvml.uuids()
    assert facts.device_total_bytes
