from __future__ import annotations

import time
from pathlib import Path

import pytest

from wansweep.case import Model
from wansweep.record import Expert, StageKind
from wansweep.trial.stages import Stages, read_journal


def test_a_journal_gives_back_the_stages_with_their_clock(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    with path.open("ab", buffering=0) as journal:
        stages = Stages(model=Model.T2V_A14B, rank=3, journal=journal)
        with stages(StageKind.TOTAL_EXECUTION):
            with stages(StageKind.PREPROCESS):
                time.sleep(0.01)
            with stages(StageKind.STEP_INFERENCE, step=7, expert=Expert.LOW):
                time.sleep(0.02)
    read = read_journal(path)
    assert [stage.name for stage in read] == ["Total_Execution", "T2V_Preprocess", "Step_7_Inference"]
    assert {stage.rank for stage in read} == {3}
    total, first, second = read
    assert (second.step, second.expert) == (7, Expert.LOW)
    assert total.start_s <= first.start_s
    assert first.start_s + (first.duration_s or 0) <= second.start_s
    assert 0.01 <= (first.duration_s or 0) <= (total.duration_s or 0)
    assert stages.done[-1].name == "Total_Execution"


def test_what_ended_before_a_death_is_kept_and_what_had_begun_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    with path.open("ab", buffering=0) as journal:
        stages = Stages(model=Model.TI2V_5B, journal=journal)
        with stages(StageKind.T5_ENCODING):
            pass
        with pytest.raises(RuntimeError), stages(StageKind.VAE_DECODING):
            raise RuntimeError
        journal.write(b'{"kind": "Save", "na')
    done, open_ = read_journal(path)
    assert done.duration_s is not None
    assert (open_.name, open_.duration_s) == ("VAE_Decoding", None)


def test_a_rank_that_never_began_has_no_stages(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == []


def test_a_stage_waits_for_the_device_at_both_ends() -> None:
    calls: list[str] = []
    stages = Stages(model=Model.TI2V_5B, sync=lambda: calls.append("sync"))
    with stages(StageKind.SAVE):
        calls.append("work")
    assert calls == ["sync", "work", "sync"]
