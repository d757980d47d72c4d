from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from tests.conftest import make_case
from tests.makers import make_record, make_stages, with_figures
from wansweep.case import Case
from wansweep.levers import Offload
from wansweep.tables.frames import stages_frame, summary_frame
from wansweep.tables.tradeoffs import ladder, memory_measured, scaling, unbeaten
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


def test_a_point_is_beaten_by_one_that_is_nowhere_more_and_somewhere_less() -> None:
    points = [(5.0, 30.0), (4.0, 10.0), (1.0, 40.0), (1.0, 20.0), (1.0, 20.0)]
    assert unbeaten(points) == {1, 3, 4}
    assert unbeaten([]) == set()


def test_what_is_not_known_of_a_point_beats_nothing() -> None:
    assert unbeaten([(2.0, 20.0), (1.0, None)]) == {0, 1}
    assert unbeaten([(2.0, None), (1.0, None), (3.0, None)]) == {1}
    assert unbeaten([(1.0, 20.0), (2.0, None)]) == {0}


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


def test_memory_is_the_most_telling_that_every_case_has_and_without_a_gpu_the_hosts() -> None:
    (case,) = named(["case"])
    assert memory_measured(summary((case, 1.0, 3.0))) == MEMORY
    assert memory_measured(summary((case, 1.0, None))) is None
    other = make_case(label="other", seed=7)
    whole = with_figures(make_stages(case), peak_reserved_bytes=GIB, device_used_bytes=GIB)
    some = [make_record(case, stages=whole), make_record(other, stages=with_figures(make_stages(other), peak_reserved_bytes=GIB))]
    assert memory_measured(summary_frame([case], some[:1], stages_frame(some[:1]))) == "peak_device_bytes"
    assert memory_measured(summary_frame([case, other], some, stages_frame(some))) == MEMORY
    stages = with_figures(make_stages(case), host_bytes=GIB)
    records = [make_record(case, stages=stages)]
    assert memory_measured(summary_frame([case], records, stages_frame(records))) == "peak_host_bytes"
