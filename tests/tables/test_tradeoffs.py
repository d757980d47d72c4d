from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from tests.conftest import make_case
from tests.makers import make_record, make_stages, with_figures
from wansweep.case import Case
from wansweep.levers import Offload
from wansweep.record import Outcome
from wansweep.tables.frames import stages_frame, summary_frame
from wansweep.tables.tradeoffs import frontier, ladder, memory_measured, scaling
from wansweep.units import GIB

MEMORY = "peak_reserved_bytes"


def summary(*measured: tuple[Case, float, float | None]) -> pl.DataFrame:
    """Cases with seconds a step and GiB."""
    records = []
    for case, step_s, gib in measured:
        stages = make_stages(case, step_s=step_s)
        records.append(make_record(case, stages=stages if gib is None else with_figures(stages, peak_reserved_bytes=gib * GIB)))
    return summary_frame([case for case, _, _ in measured], records, stages_frame(records))


def named(labels: Sequence[str]) -> list[Case]:
    return [make_case(label=label, seed=seed) for seed, label in enumerate(labels)]


def test_the_frontier_holds_what_no_other_case_beats_in_both() -> None:
    fast, small, beaten, twin = named(["fast", "small", "beaten", "as fast, larger"])
    frame = summary((beaten, 5.0, 30.0), (small, 4.0, 10.0), (twin, 1.0, 40.0), (fast, 1.0, 20.0))
    assert frontier(frame, MEMORY)["label"].to_list() == ["fast", "small"]


def test_the_frontier_leaves_out_what_was_not_measured_or_failed() -> None:
    known, unknown, failed = named(["known", "unknown", "failed"])
    records = [make_record(failed, outcome=Outcome.OOM)]
    frame = pl.concat([summary((known, 2.0, 20.0), (unknown, 1.0, None)), summary_frame([failed], records, stages_frame(records))])
    assert frontier(frame, MEMORY)["label"].to_list() == ["known"]


def test_a_rung_is_the_seconds_for_each_gib_against_the_twin_without_offload() -> None:
    none, leaf = (make_case(label=str(mode), offload=mode) for mode in (Offload.NONE, Offload.GROUP_LEAF))
    streamless = make_case(label="no stream", offload=Offload.GROUP_LEAF, group_stream=False)
    other = make_case(label="other", offload=Offload.MODEL, seed=7)
    cases = [none, leaf, streamless, other]
    # 4 steps: 1 s more a step is 4 s.
    frame = summary((none, 1.0, 30.0), (leaf, 2.0, 10.0), (streamless, 3.0, 30.01), (other, 1.0, 5.0))
    rungs = {row["label"]: row for row in ladder(cases, frame, MEMORY).iter_rows(named=True)}
    assert rungs.keys() == {"group_leaf", "no stream"}
    assert rungs["group_leaf"]["s_per_gib"] == pytest.approx(4 / 20)
    assert rungs["no stream"]["s_per_gib"] is None


def test_scaling_is_held_against_the_fewest_gpus_of_the_same_case() -> None:
    one, two, four = make_case(label="1"), make_case(label="2", gpus=2, ulysses=2), make_case(label="4", gpus=4, ulysses=2, ring=2)
    alone = make_case(label="alone", gpus=2, ulysses=2, seed=7)
    frame = summary((one, 8.0, 30.0), (two, 4.0, 30.0), (four, 4.0, 30.0), (alone, 1.0, 30.0))
    rows = {row["label"]: row for row in scaling([one, two, four, alone], frame).iter_rows(named=True)}
    assert {label: row["efficiency_pct"] for label, row in rows.items()} == {"1": 100.0, "2": 100.0, "4": 50.0}
    assert {row["group"] for row in rows.values()} == {"1"}


def test_memory_falls_back_from_reserved_to_the_hosts_to_none() -> None:
    (case,) = named(["case"])
    assert memory_measured(summary((case, 1.0, 3.0))) == MEMORY
    assert memory_measured(summary((case, 1.0, None))) is None
    stages = with_figures(make_stages(case), host_bytes=GIB)
    records = [make_record(case, stages=stages)]
    assert memory_measured(summary_frame([case], records, stages_frame(records))) == "peak_host_bytes"
