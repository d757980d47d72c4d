"""Gangs in the tables: imbalance, communication and scaling, on stages of known length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import make_case
from tests.makers import make_record, make_stages, with_figures
from wansweep.case import Case
from wansweep.record import Outcome, Record, StageKind
from wansweep.report import ranks as section
from wansweep.tables.frames import stages_frame, summary_frame
from wansweep.tables.ranks import by_kind
from wansweep.tables.scaling import twin

ALONE = make_case(label="alone")
PAIR = make_case(gpus=2, ulysses=2, label="pair")


def pair_record(*, waits: tuple[float, float] | None = (0.1, 0.4), case: Case = PAIR) -> Record:
    """Two ranks whose steps take 0.6 s each; rank 0 waits 0.1 s of them in collectives, rank 1 0.4 s."""
    stages = []
    for rank in range(2):
        own = make_stages(case, step_s=0.6, rank=rank)
        if waits:
            own = with_figures(own, StageKind.STEP_INFERENCE, communication_s=waits[rank])
            own = with_figures(own, StageKind.T5_ENCODING, communication_s=0.0)
        stages += own
    return make_record(case, stages=tuple(stages))


def summary_of(*records: Record, cases: tuple[Case, ...] = (ALONE, PAIR)) -> dict[str, dict]:
    return {row["label"]: row for row in summary_frame(cases, records, stages_frame(records)).iter_rows(named=True)}


def test_imbalance_is_of_the_ranks_own_seconds_not_of_the_length_that_a_collective_makes_equal() -> None:
    stages = stages_frame([pair_record()])
    step = stages.filter((stages["stage"] == "Step_0_Inference") & (stages["rank"] == 0)).row(0, named=True)
    # 0.5 s and 0.2 s.
    assert step["imbalance_pct"] == pytest.approx(60.0)
    assert summary_of(pair_record())["pair"]["step_imbalance_pct"] == pytest.approx(60.0)
    assert set(stages.filter(stages["stage"] == "T5_Encoding")["imbalance_pct"]) == {0.0}


def test_one_rank_has_no_imbalance_and_a_reason() -> None:
    stages = stages_frame([make_record(ALONE)])
    assert set(stages["imbalance_pct"]) == {None}
    assert set(stages["imbalance_pct_why"]) == {"not_applicable"}


def test_measured_communication_is_the_mean_over_ranks_of_a_step() -> None:
    row = summary_of(make_record(ALONE), pair_record())["pair"]
    assert (row["communication_s"], row["communication_how"]) == (pytest.approx(0.25), "measured")


def test_communication_that_was_not_measured_is_what_the_step_takes_beyond_its_share_of_the_twins() -> None:
    row = summary_of(make_record(ALONE), pair_record(waits=None))["pair"]
    # A step of 0.6 s on two GPUs, of 1 s on one.
    assert (row["communication_s"], row["communication_how"]) == (pytest.approx(0.1), "by_difference")
    without = summary_of(pair_record(waits=None))["pair"]
    assert (without["communication_s"], without["communication_how"]) == (None, None)


def test_copies_of_one_work_are_no_share_of_it() -> None:
    copies = make_case(gpus=2, fsdp=True, label="copies")
    row = summary_of(make_record(ALONE), pair_record(waits=None, case=copies), cases=(ALONE, copies))["copies"]
    assert row["communication_s"] == pytest.approx(0.6 - 1.0)


def test_scaling_efficiency_is_the_twins_time_over_n_times_the_gangs() -> None:
    row = summary_of(make_record(ALONE), pair_record())["pair"]
    assert row["scaling_efficiency_step_pct"] == pytest.approx(100 * 1.0 / (2 * 0.6))
    # 7.75 s alone; 1.6 s less on two.
    assert row["scaling_efficiency_pct"] == pytest.approx(100 * 7.75 / (2 * 6.15))
    assert (row["scaling_efficiency_pct_why"], row["scaling_efficiency_step_pct_why"]) == (None, None)


def test_without_a_twin_that_ran_there_is_no_efficiency_and_a_reason() -> None:
    offloaded = replace(ALONE, offload="model", label="offloaded")
    rows = summary_of(make_record(offloaded), pair_record(), cases=(offloaded, PAIR))
    assert rows["pair"]["scaling_efficiency_pct"] is None
    assert rows["pair"]["scaling_efficiency_pct_why"] == "no case equal but for GPUs, degrees and fsdp ran on one GPU"
    assert rows["offloaded"]["scaling_efficiency_pct_why"] == "one GPU"
    failed = summary_of(make_record(ALONE), make_record(PAIR, outcome=Outcome.OOM, reason="full"))["pair"]
    assert failed["scaling_efficiency_step_pct_why"] == "the case has no time"


def test_a_twin_may_have_a_name_of_its_own() -> None:
    named = make_case(gpus=8, cfg_parallel=2, ulysses=2, ring=2, fsdp=True, name="all of it")
    assert twin(named) == twin(ALONE)
    assert twin(replace(named, seed=1)) != twin(ALONE)


def test_kinds_of_stages_are_added_up_a_rank_at_a_time() -> None:
    kinds = {row["kind"]: row for row in by_kind(stages_frame([pair_record()])).iter_rows(named=True)}
    steps = kinds["Inference"]
    assert (steps["ranks"], steps["slowest_s"], steps["communication_s"]) == (2, pytest.approx(2.4), pytest.approx(1.0))
    assert steps["imbalance_pct"] == pytest.approx(60.0)


def test_the_report_of_a_gang_says_what_every_rank_did_for_itself() -> None:
    records = [make_record(ALONE), pair_record()]
    rows, stages = summary_of(*records), stages_frame(records)
    text = section.render(rows["pair"], records[1:], stages)
    assert "- **Scaling Efficiency**: 63.0 % of the whole, 83.3 % of a step" in text
    assert "- **Communication per Step**: 0.250 s, measured" in text
    assert "- **Imbalance of the Steps**: 60.0 %" in text
    assert "| T5_Encoding | 1.000 | 1.000 | 0.000 | 0.0 | replicated on 2 ranks |" in text
    assert "| VAE_Decoding | 0.500 | 0.500 | n/a | 0.0 | replicated on 2 ranks |" in text
    assert "| Steps' Inference | 2.400 | 2.400 | 1.000 | 60.0 |  |" in text
    assert section.render(rows["alone"], records[:1], stages) == ""
