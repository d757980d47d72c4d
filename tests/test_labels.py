from __future__ import annotations

from tests.conftest import make_a14b, make_case
from wansweep.labels import labelled, unique
from wansweep.levers import Cache


def test_what_is_null_in_a_case_is_left_out_of_its_label() -> None:
    cases = [make_a14b(cache=Cache.NONE), make_a14b(cache=Cache.MAG, cache_threshold=0.06), make_a14b(cache=Cache.PAB, cache_interval=3)]
    told = [case.label for case in labelled(cases, varied=("model", "cache", "cache_threshold", "cache_interval"))]
    shape = "t2v_a14b-1280x720x81-s4"
    assert told == [f"{shape}-none", f"{shape}-mag-cache_threshold0.06", f"{shape}-pab-cache_interval3"]


def test_a_group_begins_the_label() -> None:
    assert labelled([make_case()], varied=(), group="offload")[0].label == "offload-ti2v_5b-1280x704x121-s4"


def test_two_cases_with_one_label_are_told_apart_by_their_ids() -> None:
    long = [make_case(prompt="a cat " * 20 + end) for end in ("sits", "walks")]
    first, second = unique(labelled(long, varied=("prompt",)))
    assert second.label == f"{first.label}-{second.id[:6]}"
    assert (first.id, second.id) == (long[0].id, long[1].id)
