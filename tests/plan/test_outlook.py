from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.plan.cases import large
from wansweep.plan.outlook import Outlook, outlook
from wansweep.plan.planner import PlannedCase, Verdict, overdue, trial_s
from wansweep.sweep import Hardware, Isolation, Procedure

HOST = 10 * 2**30
ONCE = Procedure(repeats=1, timeout_s=1800, isolation=Isolation.PROCESS, keep_video=False)


def row(seconds: float | None, *, gpus: int = 1, verdict: Verdict = Verdict.RUN, seed: int = 0) -> PlannedCase:
    case = large(gpus=gpus, ulysses=gpus, seed=seed)
    return PlannedCase(case=case, verdict=verdict, reason="", predicted_flop=1, predicted_total_s=seconds, predicted_host_bytes=HOST)


def of(rows: list[PlannedCase], gpus: int, *, price: float | None = None, repeats: int = 1, exclusive: bool = False) -> Outlook:
    hardware = Hardware(name="h100", gpus=gpus, price_per_gpu_hour=price)
    found = outlook(rows, hardware, procedure=replace(ONCE, repeats=repeats), exclusive=exclusive)
    assert found is not None
    return found


def test_trials_of_known_lengths_take_what_can_be_counted_by_hand() -> None:
    rows = [row(3600, seed=1), row(3600, seed=2), row(1800, gpus=2), row(99, verdict=Verdict.SKIP), row(None, seed=3)]
    found = of(rows, 2, price=2.5)
    assert (found.trials, found.unknown) == (3, 1)
    assert found.gpu_hours == pytest.approx(3.0)
    assert found.wall_s == found.bound_s == 5400
    assert found.utilisation == pytest.approx(1.0)
    assert found.cost == pytest.approx(2 * 1.5 * 2.5)
    assert found.node_host_bytes == 2 * HOST


def test_repeats_count() -> None:
    assert of([row(100)], 1, repeats=3).wall_s == 300


def test_warm_ups_and_rests_are_part_of_what_a_sweep_takes() -> None:
    # 40 s of loading and compiling once, 60 s a generation, of which two are thrown away, after a rest of 30 s.
    loaded = replace(row(100), predicted_load_s=30.0, predicted_compile_s=10.0)
    careful = replace(ONCE, warmups=2, cooldown_s=30)
    assert trial_s(loaded, careful) == 30 + 40 + 3 * 60
    found = outlook([loaded], Hardware(name="h100", gpus=1), procedure=careful, exclusive=False)
    assert found is not None
    assert found.wall_s == 250


def test_a_case_that_runs_for_longer_than_it_may_says_so() -> None:
    late, long, skipped = row(1801), row(1000, seed=1), row(9999, seed=2, verdict=Verdict.SKIP)
    assert [found.note for found in overdue([late, long, skipped], ONCE)] == ["over procedure.timeout_s=1800: 1801 s, will time out", "", ""]
    assert overdue([long], replace(ONCE, warmups=1))[0].note.endswith("2000 s, will time out")


def test_without_a_price_or_a_prediction_there_is_none() -> None:
    assert of([row(1)], 1).cost is None
    assert outlook([row(None)], Hardware(name="auto", gpus=1), procedure=ONCE, exclusive=False) is None


def test_thousands_of_trials_are_packed_as_the_scheduler_would_in_seconds() -> None:
    rows = [row(100 + seed % 97, gpus=(1, 2, 4, 8)[seed % 4], seed=seed) for seed in range(4000)]
    begin_s = time.process_time()
    found = of(rows, 1024)
    # A tenth of a millisecond a trial on an idle core; the older packer took 20.
    assert time.process_time() - begin_s < 10
    assert found.bound_s <= found.wall_s < 1.15 * found.bound_s
    assert found.utilisation == pytest.approx(found.gpu_hours * 3600 / 1024 / found.wall_s)
    assert found.first.startswith("trial starts")


def test_an_exclusive_node_counts_as_the_scheduler_uses_it() -> None:
    rows = [row(100, seed=seed) for seed in range(16)]
    shared, alone = of(rows, 16), of(rows, 16, exclusive=True)
    assert (shared.wall_s, alone.wall_s) == (100, 800)
    assert alone.utilisation == pytest.approx(1 / 8)
    assert alone.first.startswith("one trial a node")
    assert (shared.node_host_bytes, alone.node_host_bytes) == (8 * HOST, HOST)


def test_what_gives_way_first_is_told() -> None:
    assert of([row(1000), row(10, seed=1)], 8).first.startswith("the longest trial")
    assert of([row(100, seed=seed) for seed in range(8)], 2).first.startswith("the GPUs")
    assert of([row(100, gpus=2, seed=seed) for seed in range(5)], 3).first.startswith("packing")
