from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.cases import large, small
from wansweep.case import Case
from wansweep.levers import Offload, Quant
from wansweep.plan.dominance import needs_no_less


@pytest.mark.parametrize(
    "more",
    [
        {"frames": 85},
        {"width": 1312},
        {"batch": 2},
        {"offload": Offload.EXPERT},
        {"offload": Offload.NONE},
        {"steps": 4, "seed": 1, "name": "n"},
    ],
)
def test_more_frames_pixels_or_videos_or_less_offload_need_no_less(more: dict[str, object]) -> None:
    offloaded = {"offload": Offload.MODEL}
    assert needs_no_less(large(**{**offloaded, **more}), large(**offloaded))


@pytest.mark.parametrize("less", [{"frames": 77}, {"height": 480}, {"offload": Offload.SEQUENTIAL}])
def test_less_of_it_may_need_less(less: dict[str, object]) -> None:
    assert not needs_no_less(large(**less), large())


def test_fewer_gpus_need_no_less() -> None:
    assert needs_no_less(large(gpus=2, ulysses=2), large(gpus=4, ulysses=4))
    assert not needs_no_less(large(gpus=4, ulysses=4), large(gpus=2, ulysses=2))


@pytest.mark.parametrize("other", [large(quant=Quant.TORCHAO_INT8), large(vae_tiling=True), large(guidance=1.0), small(frames=121)])
def test_cases_that_differ_otherwise_say_nothing_of_each_other(other: Case) -> None:
    assert not needs_no_less(other, large())


CASES = st.builds(
    large, frames=st.sampled_from([5, 81]), width=st.sampled_from([832, 1280]), offload=st.sampled_from(list(Offload)), batch=st.integers(1, 2)
)


@given(CASES, CASES, CASES)
def test_it_is_a_partial_order(one: Case, two: Case, three: Case) -> None:
    assert needs_no_less(one, one)
    if needs_no_less(one, two) and needs_no_less(two, three):
        assert needs_no_less(one, three)
