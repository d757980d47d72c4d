"""Admission of trials, without Ray: nothing starves, nothing is promised twice, who shared a node is told, what was lost is tried again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_case
from wansweep.record import Outcome, unrun
from wansweep.schedule.cluster import Capacity
from wansweep.schedule.order import Order
from wansweep.schedule.queue import RETURN_S, SUSPECT_S, Queue
from wansweep.schedule.tuning import _dominating
from wansweep.sweep import Cluster, Isolation, ModelSource, Procedure

SOURCE = ModelSource(repo="none", revision=None, fps=16, boundary=None)
PROCEDURE = Procedure(repeats=1, timeout_s=1, isolation=Isolation.PROCESS, keep_video=False)
EIGHT = Capacity(gpus=(8,), cpus=(64.0,), names=("a",))
TWO_NODES = Capacity(gpus=(2, 2), cpus=(4.0, 4.0), names=("a", "b"))


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def order(gpus: int, number: int, *, steps: int = 4) -> Order:
    case = make_case(gpus=gpus, ulysses=gpus, seed=number, steps=steps, label=f"c{number}")
    return Order(case=case, trial=0, source=SOURCE, rank_cpus=0.9, on_gpus=True, procedure=PROCEDURE, run_folder="", scratch=None)


def queue(
    capacity: Capacity, *orders: Order, exclusive: bool = False, nodes: Mapping[str, float] | None = None, straddle: bool = False, clock=None
) -> Queue:
    cluster = Cluster(address="local", gpus=None, exclusive=exclusive, straddle=straddle)
    alive = capacity.nodes(gpus=capacity.on_gpus) if nodes is None else nodes
    made = Queue(capacity=capacity, cluster=cluster, nodes_now=lambda: alive, clock=clock or Clock())
    made.add(orders)
    return made


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_every_trial_starts_once_and_they_never_take_more_than_there_is(sizes: list[int], random) -> None:
    trials = queue(EIGHT, *(order(gpus, number) for number, gpus in enumerate(sizes)))
    started: list[int] = []
    live: dict[str, int] = {}
    tick = 0
    while not trials.over:
        admitted = trials.admit(f"t{tick}")
        if admitted is None:
            assert live, "nothing runs and nothing is let in"
            ended = random.choice(sorted(live))
            del live[ended]
            trials.release(ended)
        else:
            live[f"t{tick}"] = admitted.case.gpus
            started.append(admitted.case.seed)
            assert set(admitted.place) == {"a"}
            assert len(admitted.place) == admitted.case.gpus
            assert sum(live.values()) <= 8
        tick += 1
    assert sorted(started) == list(range(len(sizes)))


def test_equal_trials_start_in_the_order_of_the_sweep() -> None:
    trials = queue(EIGHT, *(order(8, number) for number in (3, 1, 2)))
    started = []
    while admitted := trials.admit("t"):
        started.append(admitted.case.seed)
        trials.release("t")
    assert started == [3, 1, 2]


def test_an_exclusive_node_runs_one_trial_at_a_time() -> None:
    trials = queue(EIGHT, order(1, 0), order(1, 1), exclusive=True)
    assert trials.admit("a") is not None
    assert trials.admit("b") is None
    trials.release("a")
    second = trials.admit("b")
    assert second is not None
    assert trials.shared_with(second) == ()


def test_exclusive_trials_go_to_different_nodes() -> None:
    trials = queue(TWO_NODES, order(1, 0), order(1, 1), order(1, 2), exclusive=True)
    first, second = trials.admit("a"), trials.admit("b")
    assert first is not None
    assert second is not None
    assert {first.place, second.place} == {("a",), ("b",)}
    assert trials.admit("c") is None


def test_trials_that_ran_beside_each_other_are_told_of_each_other() -> None:
    trials = queue(EIGHT, order(4, 0), order(4, 1), order(4, 2))
    first, second = trials.admit("a"), trials.admit("b")
    trials.release("a")
    third = trials.admit("c")
    assert first is not None
    assert second is not None
    assert third is not None
    assert trials.shared_with(first) == ("c1 #0",)
    assert trials.shared_with(second) == ("c0 #0", "c2 #0")
    assert trials.shared_with(third) == ("c1 #0",)


def test_trials_on_different_nodes_share_nothing() -> None:
    trials = queue(TWO_NODES, order(2, 0), order(2, 1))
    first, second = trials.admit("a"), trials.admit("b")
    assert first is not None
    assert second is not None
    assert trials.shared_with(first) == trials.shared_with(second) == ()


def test_a_trial_that_was_lost_is_tried_again_on_another_node_and_names_its_attempts() -> None:
    clock = Clock()
    trials = queue(TWO_NODES, order(2, 0), order(2, 1), order(2, 2), clock=clock)
    lost, other = trials.admit("a"), trials.admit("b")
    assert lost is not None
    assert other is not None
    trials.release("a", learn=False)
    trials.try_again(lost, "its node went away")
    assert not trials.over
    # Its node is not trusted, and the other one is taken.
    assert trials.admit("c") is None
    trials.release("b")
    places = []
    for number in range(2):
        again = trials.admit(f"d{number}")
        assert again is not None
        places.append((again.case.seed, again.place, again.earlier_attempts))
        trials.release(f"d{number}")
    assert {place for _, place, _ in places} == {other.place}
    assert (lost.case.seed, other.place, ("attempt 1: its node went away",)) in places


def test_a_node_that_turns_out_to_live_is_used_again() -> None:
    clock = Clock()
    trials = queue(TWO_NODES, order(2, 0), order(2, 1), clock=clock)
    lost = trials.admit("a")
    assert lost is not None
    assert trials.admit("b") is not None
    trials.release("a", learn=False)
    trials.try_again(lost, "its controller died")
    assert trials.gone(lost) is False  # until the queue looks
    assert trials.admit("c") is None
    assert trials.gone(lost)
    clock.now_s = SUSPECT_S + 1
    again = trials.admit("c")
    assert again is not None
    assert again.place == lost.place


def test_trials_that_no_node_can_hold_any_more_are_given_up_after_a_while() -> None:
    clock = Clock()
    alive = {"a": 2.0, "b": 4.0}
    capacity = Capacity(gpus=(4, 2), cpus=(4.0, 4.0), names=("b", "a"))
    trials = queue(capacity, order(4, 0), nodes=alive, clock=clock)
    del alive["b"]
    assert trials.admit("a") is None
    assert trials.stranded() == []
    clock.now_s = RETURN_S + 1
    assert [one.case.seed for one in trials.stranded()] == [0]
    assert trials.over


def test_a_gang_larger_than_a_node_straddles_when_asked() -> None:
    trials = queue(TWO_NODES, order(4, 0), straddle=True)
    wide = trials.admit("a")
    assert wide is not None
    assert wide.place == ("a", "a", "b", "b")
    assert not wide.one_node
    assert TWO_NODES.refusal(4, straddle=True) == ""
    assert TWO_NODES.refusal(5, straddle=True) == "needs 5 GPUs; all nodes together have 4"


@pytest.mark.parametrize("cpus", [1.0, 2.0, 16.0])
@given(ranks=st.sampled_from([1, 2, 3, 4, 8, 16]))
def test_any_gang_fits_a_node_without_gpus(cpus: float, ranks: int) -> None:
    capacity = Capacity(gpus=(0,), cpus=(cpus,), names=("a",))
    assert capacity.refusal(ranks) == ""
    assert 0 < capacity.need(ranks) <= capacity.slots + 1e-9


def test_two_gangs_of_one_rank_share_two_cpus_and_two_of_two_do_not() -> None:
    capacity = Capacity(gpus=(0,), cpus=(2.0,), names=("a",))
    assert 2 * capacity.need(1) <= capacity.slots
    assert 2 * capacity.need(2) > capacity.slots


def test_a_gang_that_no_node_can_hold_is_refused_at_once() -> None:
    two_nodes = replace(EIGHT, gpus=(4, 4), cpus=(8.0, 8.0), names=("a", "b"))
    assert two_nodes.refusal(8) == "needs 8 GPUs on one node; the largest node has 4; cluster.straddle=true spreads a gang over nodes"
    assert two_nodes.refusal(16) == "needs 16 GPUs on one node; the largest node has 4"
    assert two_nodes.refusal(4) == ""


def test_all_gpus_of_a_node_with_few_cores_can_be_reserved() -> None:
    crowded = Capacity(gpus=(8,), cpus=(4.0,), names=("a",))
    assert 8 * crowded.rank_cpus(8) + 0.1 <= 4.0
    assert 8 * (crowded.rank_cpus(1) + 0.1) <= 4.0
    mixed = Capacity(gpus=(8, 8), cpus=(64.0, 4.0), names=("a", "b"))
    assert mixed.rank_cpus(8) == crowded.rank_cpus(8)


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.CRASH])
def test_a_case_that_ran_out_of_memory_takes_those_that_need_no_less_with_it(outcome: Outcome) -> None:
    shorter, longer, other = (
        replace(order(1, 0), case=make_case(**fields)) for fields in ({"frames": 17}, {"frames": 81}, {"vae_tiling": True})
    )
    trials = queue(EIGHT, shorter, longer, other)
    failed = unrun(make_case(frames=49, label="witness"), 0, outcome, "CUDA out of memory")
    skipped = _dominating(trials, failed)
    if outcome is Outcome.CRASH:
        assert (skipped, trials.waiting) == ([], 3)
        return
    started = [trials.admit(f"t{i}") for i in range(3)]
    assert {order.case for order in started if order} == {shorter.case, other.case}
    assert [(record.case, record.outcome) for record in skipped] == [(longer.case, Outcome.SKIPPED)]
    assert skipped[0].reason == "dominated: needs no less memory than witness, which ran out of it (CUDA out of memory)"
