"""Admission of trials, without Ray: order is kept, nothing starves, nothing is promised twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_case
from wansweep.record import Outcome
from wansweep.schedule.cluster import Capacity
from wansweep.schedule.order import Order
from wansweep.schedule.tuning import _dominating, _Queue, _unrun
from wansweep.sweep import Isolation, ModelSource, Procedure

SOURCE = ModelSource(repo="none", revision=None, fps=16, boundary=None)
PROCEDURE = Procedure(repeats=1, timeout_s=1, isolation=Isolation.PROCESS, keep_video=False)
EIGHT = Capacity(gpus=(8,), cpus=(64.0,))


def order(gpus: int, number: int) -> Order:
    case = make_case(gpus=gpus, ulysses=gpus, seed=number, label=f"c{number}")
    return Order(case=case, trial=0, source=SOURCE, rank_cpus=0.9, on_gpus=True, procedure=PROCEDURE, run_folder="", scratch=None)


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_trials_start_in_order_and_never_take_more_than_there_is(sizes: list[int], random) -> None:
    queue = _Queue(capacity=EIGHT, exclusive=False)
    queue.waiting.extend(order(gpus, number) for number, gpus in enumerate(sizes))
    started: list[int] = []
    tick = 0
    while queue.waiting:
        admitted = queue.admit(f"t{tick}")
        tick += 1
        if admitted is None:
            assert queue.live, "nothing runs and nothing is let in"
            del queue.live[random.choice(sorted(queue.live))]
            continue
        started.append(admitted.case.seed)
        assert sum(queue.live.values()) <= 8
    assert started == list(range(len(sizes)))


def test_an_exclusive_node_runs_one_trial_at_a_time() -> None:
    queue = _Queue(capacity=EIGHT, exclusive=True)
    queue.waiting.extend([order(1, 0), order(1, 1)])
    assert queue.admit("a") is not None
    assert queue.admit("b") is None
    queue.live.clear()
    assert queue.admit("b") is not None


@pytest.mark.parametrize("cpus", [1.0, 2.0, 16.0])
@given(ranks=st.sampled_from([1, 2, 3, 4, 8, 16]))
def test_any_gang_fits_a_node_without_gpus(cpus: float, ranks: int) -> None:
    capacity = Capacity(gpus=(0,), cpus=(cpus,))
    assert capacity.refusal(ranks) == ""
    assert 0 < capacity.need(ranks) <= capacity.slots + 1e-9


def test_two_gangs_of_one_rank_share_two_cpus_and_two_of_two_do_not() -> None:
    capacity = Capacity(gpus=(0,), cpus=(2.0,))
    assert 2 * capacity.need(1) <= capacity.slots
    assert 2 * capacity.need(2) > capacity.slots


def test_a_gang_that_no_node_can_hold_is_refused_at_once() -> None:
    two_nodes = replace(EIGHT, gpus=(4, 4), cpus=(8.0, 8.0))
    assert two_nodes.refusal(8) == "needs 8 GPUs on one node; the largest node has 4"
    assert two_nodes.refusal(4) == ""


def test_all_gpus_of_a_node_with_few_cores_can_be_reserved() -> None:
    crowded = Capacity(gpus=(8,), cpus=(4.0,))
    assert 8 * crowded.rank_cpus(8) + 0.1 <= 4.0
    assert 8 * (crowded.rank_cpus(1) + 0.1) <= 4.0


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.CRASH])
def test_a_case_that_ran_out_of_memory_takes_those_that_need_no_less_with_it(outcome: Outcome) -> None:
    queue = _Queue(capacity=EIGHT, exclusive=False)
    shorter, longer, other = (
        replace(order(1, 0), case=make_case(**fields)) for fields in ({"frames": 17}, {"frames": 81}, {"vae_tiling": True})
    )
    queue.waiting.extend([shorter, longer, other])
    failed = _unrun(make_case(frames=49, label="witness"), 0, outcome, "CUDA out of memory")
    skipped = _dominating(queue, failed)
    if outcome is Outcome.CRASH:
        assert (skipped, list(queue.waiting)) == ([], [shorter, longer, other])
        return
    assert list(queue.waiting) == [shorter, other]
    assert [(record.case, record.outcome) for record in skipped] == [(longer.case, Outcome.SKIPPED)]
    assert skipped[0].reason == "dominated: needs no less memory than witness, which ran out of it (CUDA out of memory)"
