"""Packing: nothing is promised twice, nothing starves, a gang stays on its node, and the node is kept full."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_case
from wansweep.plan.job import Job
from wansweep.plan.packing import Packer, Schedule, guessed_s, simulate, weights_group
from wansweep.plan.waiting import Waiting, in_order

EIGHT = {"a": 8.0}
JOBS = st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.floats(0.5, 500.0), st.sampled_from("xyz")), min_size=1, max_size=40)


def job(key: str, gpus: int, seconds: float, group: str = "", *, straddles: bool = False) -> Job:
    return Job(key=key, ranks=gpus, slots=float(gpus), seconds=seconds, group=group, straddles=straddles)


def jobs_of(drawn: list[tuple[int, float, str]]) -> list[Job]:
    return [job(str(number), *what) for number, what in enumerate(drawn)]


def mixed(seed: int) -> list[Job]:
    draw = random.Random(seed)
    return [
        job(str(number), draw.choices([1, 2, 4, 8], [4, 3, 2, 1])[0], draw.lognormvariate(4, 1), str(draw.randrange(3)))
        for number in range(200)
    ]


def started(schedule: Schedule) -> list[str]:
    return [start.job.key for start in schedule.starts]


@given(JOBS, st.booleans())
def test_every_trial_runs_once_and_never_more_than_a_node_has(drawn: list[tuple[int, float, str]], exclusive: bool) -> None:
    jobs = jobs_of(drawn)
    nodes = {"a": 8.0, "b": 8.0}
    schedule = simulate(jobs, nodes, exclusive=exclusive)
    assert sorted(started(schedule)) == sorted(one.key for one in jobs)
    for at in schedule.starts:
        beside = [s for s in schedule.starts if s.start_s <= at.start_s < s.start_s + s.job.seconds]
        for node in nodes:
            assert sum(s.takes.get(node, 0.0) for s in beside) <= 8.0
            assert not exclusive or sum(node in s.takes for s in beside) <= 1
    assert schedule.bound_s <= schedule.makespan_s * (1 + 1e-9)


@given(JOBS)
def test_a_gang_stays_on_one_node(drawn: list[tuple[int, float, str]]) -> None:
    schedule = simulate(jobs_of(drawn), {"a": 8.0, "b": 8.0, "c": 8.0}, exclusive=False)
    assert all(len(set(start.nodes)) == 1 and len(start.nodes) == start.job.ranks for start in schedule.starts)


def test_the_groups_with_most_work_come_first_and_in_them_the_largest_and_then_the_longest() -> None:
    jobs = [job("a", 1, 9, "x"), job("b", 8, 1, "x"), job("c", 2, 50, "y"), job("d", 8, 3, "y"), job("e", 2, 60, "y"), job("f", 1, 9, "x")]
    assert [one.key for one in in_order(jobs)] == ["d", "e", "c", "b", "a", "f"]


def test_trials_of_a_group_run_one_after_the_other_on_an_exclusive_node() -> None:
    schedule = simulate([replace(one, seconds=10.0) for one in mixed(1)], EIGHT, exclusive=True)
    assert len(list(groupby(start.job.group for start in schedule.starts))) == 3


def test_a_smaller_trial_overtakes_the_head_only_where_it_does_not_delay_it() -> None:
    packer = Packer(nodes=EIGHT, exclusive=False)
    packer.add([job("long", 7, 100)])
    assert packer.start(0.0)
    packer.add([job("head", 8, 300), job("fits the gap", 1, 90), job("too long", 1, 101)])
    assert [one.key for one in packer.waiting] == ["head", "too long", "fits the gap"]
    taken = packer.start(5.0)
    assert taken is not None
    assert taken.job.key == "fits the gap"
    assert packer.start(5.0) is None
    packer.finish("long", 100.0)
    packer.finish("fits the gap", 95.0)
    head = packer.start(100.0)
    assert head is not None
    assert head.job.key == "head"


def test_a_stream_of_small_trials_does_not_starve_a_large_one() -> None:
    """Each small one that ends would make room for the next, for ever; the large one was there first."""
    packer = Packer(nodes=EIGHT, exclusive=False)
    packer.add([job(f"small{number}", 1, 10, "first") for number in range(8)])
    now_s, running = 0.0, []
    while trial := packer.start(now_s):
        running.append(trial.job.key)
    packer.add([job("large", 8, 30, "first")])
    for number in range(100):
        packer.add([job(f"later{number}", 1, 10, "first")])
        now_s += 1.0
        if running:
            packer.finish(running.pop(0), now_s)
        while trial := packer.start(now_s):
            running.append(trial.job.key)
            if trial.job.key == "large":
                return
    pytest.fail("the large trial never started")


def test_a_long_trial_of_one_gpu_is_not_left_for_the_end() -> None:
    jobs = [*(job(f"w{number}", 8, 10) for number in range(10)), job("long", 1, 100)]
    schedule = simulate(jobs, EIGHT, exclusive=False)
    assert started(schedule)[0] == "long"
    assert simulate([*jobs[:-1], job("short", 1, 1)], EIGHT, exclusive=False).starts[0].job.ranks == 8


def test_the_scale_of_predictions_is_learned_from_what_ended() -> None:
    jobs = mixed(3)
    exact = simulate(jobs, EIGHT, exclusive=False)
    slower = simulate(jobs, EIGHT, exclusive=False, took_s={one.key: one.seconds * 50 for one in jobs})
    assert slower.makespan_s / slower.bound_s < exact.makespan_s / exact.bound_s + 0.1


def test_two_hundred_cases_keep_eight_gpus_full() -> None:
    ratios = [(found := simulate(mixed(seed), EIGHT, exclusive=False)).makespan_s / found.bound_s for seed in range(5)]
    assert statistics.median(ratios) < 1.05
    assert max(ratios) < 1.15


def test_a_trial_larger_than_any_node_straddles_them_only_when_asked() -> None:
    nodes = {"a": 2.0, "b": 2.0}
    with pytest.raises(ValueError, match="slots=4 fit no node"):
        simulate([job("wide", 4, 1)], nodes, exclusive=False)
    (wide,) = simulate([job("wide", 4, 1, straddles=True)], nodes, exclusive=False).starts
    assert wide.nodes == ("a", "a", "b", "b")
    (narrow,) = simulate([job("narrow", 2, 1, straddles=True)], nodes, exclusive=False).starts
    assert len(set(narrow.nodes)) == 1


def test_a_node_that_is_gone_gets_nothing_more() -> None:
    packer = Packer(nodes={"a": 2.0, "b": 2.0}, exclusive=False)
    packer.add([job("1", 2, 5), job("2", 2, 5), job("3", 2, 5)])
    first, second = packer.start(0.0), packer.start(0.0)
    assert first is not None
    assert second is not None
    packer.nodes = {second.nodes[0]: 2.0}
    packer.finish(first.job.key, 1.0, learn=False)
    assert packer.start(1.0) is None
    packer.finish(second.job.key, 5.0)
    third = packer.start(5.0)
    assert third is not None
    assert third.nodes[0] == second.nodes[0]


def test_what_no_node_can_hold_waits_and_holds_nothing_up() -> None:
    packer = Packer(nodes={"a": 8.0, "b": 4.0}, exclusive=False)
    packer.add([job("wide", 8, 100), job("narrow", 4, 1)])
    packer.nodes = {"b": 4.0}
    assert packer.start(0.0).job.key == "narrow"
    packer.finish("narrow", 1.0)
    assert packer.start(1.0) is None
    packer.nodes = {"a": 8.0, "b": 4.0}
    assert packer.start(2.0).job.key == "wide"


@given(JOBS, st.lists(st.floats(0.0, 600.0), min_size=1, max_size=8))
def test_the_waiting_stand_as_sorting_all_of_them_each_time_would_put_them(drawn: list[tuple[int, float, str]], lefts: list[float]) -> None:
    jobs = in_order(jobs_of(drawn))
    waiting, plain = Waiting(jobs), list(jobs)
    for number, left_s in enumerate(lefts):
        waiting.urge(left_s)
        plain.sort(key=lambda one: (0.0, 0.0) if one.seconds < left_s else (-1.0, -one.seconds))
        assert list(waiting) == plain
        for form in waiting.forms:
            limit_s = 50.0 * number
            found = waiting.first({form: limit_s})
            assert found == next((one for one in plain if one.form == form and one.seconds <= limit_s), None)
        if plain:
            waiting.remove(gone := plain.pop(number % len(plain)))
            assert gone not in list(waiting)


def test_cases_that_read_the_same_weights_are_a_group_and_more_work_is_longer() -> None:
    case = make_case()
    assert weights_group(case) == weights_group(replace(case, steps=case.steps + 1))
    assert weights_group(case) != weights_group(replace(case, weights="random"))
    assert guessed_s(replace(case, steps=case.steps + 1)) > guessed_s(case)
