from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_a14b, make_case
from wansweep.case import Model
from wansweep.errors import CaseError
from wansweep.plan.geometry import GRIDS, LatentShape, as_run, degree_problems, latent_shape, tokens
from wansweep.plan.rules import problems


@pytest.mark.parametrize(
    ("case", "shape", "count"),
    [
        (make_case(weights="hub"), LatentShape(channels=48, frames=31, height=44, width=80), 27_280),
        (make_a14b(weights="hub"), LatentShape(channels=16, frames=21, height=90, width=160), 75_600),
        (make_a14b(weights="hub", width=832, height=480), LatentShape(channels=16, frames=21, height=60, width=104), 32_760),
    ],
)
def test_latents_and_tokens_are_those_of_the_published_workloads(case, shape: LatentShape, count: int) -> None:
    assert latent_shape(case) == shape
    assert tokens(case) == count


def test_a_size_off_the_grid_is_refused_with_its_neighbours() -> None:
    with pytest.raises(CaseError, match="width=1290 is no multiple of 32.*nearest: 1280, 1312"):
        latent_shape(make_case(width=1290))


def test_the_ulysses_degree_must_divide_the_tokens() -> None:
    # 5B at 832x480x121 gives 12,090 tokens: plain context parallelism refuses 4.
    told = problems(make_case(weights="hub", width=832, height=480, gpus=4, ulysses=4))
    assert told == ["ulysses=4 does not divide the 12090 tokens of ti2v_5b at this size; nearest: 3"]


@given(st.sampled_from(list(Model)), st.integers(1, 60), st.integers(1, 40), st.integers(0, 40))
def test_a_miniature_is_on_the_grid_and_divides_among_eight_ranks(model: Model, columns: int, rows: int, later: int) -> None:
    side = GRIDS[model].side
    case = make_case(model=model, task=GRIDS[model].tasks[0], width=columns * side, height=rows * side, frames=4 * later + 1)
    small = as_run(case)
    assert not problems(small)
    assert tokens(small) % 8 == 0
    assert small.width <= max(case.width, 4 * side)
    assert small.height <= max(case.height, 2 * side)
    assert small.frames <= max(case.frames, 5)


def test_real_weights_run_at_the_size_declared() -> None:
    assert as_run(make_case(weights="hub")) == make_case(weights="hub")


def test_a_second_guidance_for_a_model_with_one_expert_is_refused() -> None:
    assert problems(make_case(guidance_2=3.0)) == ["guidance_2=3.0: ti2v_5b has one expert; leave it null"]


def test_with_fsdp_ranks_beyond_the_degrees_are_copies_that_lend_their_memory() -> None:
    assert degree_problems(make_case(gpus=4, ulysses=2, fsdp=True)) == []
    (told,) = degree_problems(make_case(gpus=3, ulysses=2, fsdp=True))
    assert told == "gpus=3 is no multiple of the parallel degrees (ulysses=2); nearest: gpus=4"
    (told,) = degree_problems(make_case(gpus=4, ulysses=2))
    assert "gpus=4 is not the product" in told
