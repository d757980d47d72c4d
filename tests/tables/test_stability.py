from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wansweep.tables.stability import TARGET_PCT, Stability, Verdict, assess, half_width_pct, repeats_for, t_975

_FREEDOM = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 60, 100]


def judge(values: Sequence[float]) -> Stability:
    median = statistics.median(values) if values else None
    return assess(n=len(values), median=median, stdev=statistics.stdev(values) if len(values) > 1 else None)


def student_cdf(t: float, freedom: int, *, slices: int = 20_000) -> float:
    """Integrated from the density by Simpson's rule: an independent way to the table's quantiles."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    h = t / slices
    density = [scale * (1 + (i * h) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(slices + 1)]
    return 0.5 + h / 3 * (density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]))


@pytest.mark.parametrize("freedom", _FREEDOM)
def test_the_quantiles_are_students(freedom: int) -> None:
    assert student_cdf(t_975(freedom), freedom) == pytest.approx(0.975, abs=3e-5)  # of quantiles printed to 0.001


def test_between_two_rows_of_the_table_the_wider_quantile_holds() -> None:
    assert t_975(11) == t_975(10)
    assert t_975(10**6) == t_975(100)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([], "insufficient: n=0; 3 more repeats would give an interval"),
        ([100.0], "insufficient: n=1; 2 more repeats would give an interval"),
        ([100.0, 100.0], "insufficient: n=2; 1 more repeat would give an interval"),
        ([100.0, 100.1, 100.2], "stable: +-0.2 % over n=3"),
        ([98.0, 100.0, 102.0], "noisy: +-5.0 % over n=3; about 4 more repeats for +-2 %"),
    ],
)
def test_the_verdict_names_the_next_action(values: list[float], advice: str) -> None:
    assert judge(values).advice == advice


def test_the_interval_is_the_textbooks() -> None:
    # n=3, standard deviation 2, t(0.975; 2) = 4.303: 4.303 * 2 / sqrt(3) = 4.97.
    assert judge([98.0, 100.0, 102.0]).half_width_pct == pytest.approx(4.969, abs=0.001)


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=8).filter(lambda xs: max(xs) - min(xs) > 1e-6),
    st.floats(0, 20),
    st.floats(1, 10),
)
def test_more_spread_never_makes_a_case_more_stable(shape: list[float], spread: float, more: float) -> None:
    median = sorted(shape)[len(shape) // 2] if len(shape) % 2 else sum(sorted(shape)[len(shape) // 2 - 1 : len(shape) // 2 + 1]) / 2
    near, far = (judge([100 + scale * (x - median) for x in shape]) for scale in (spread, spread * more))
    assert near.half_width_pct is not None
    assert far.half_width_pct is not None
    assert near.half_width_pct <= far.half_width_pct + 1e-9
    if abs(near.half_width_pct - TARGET_PCT) > 1e-6 and near.verdict is Verdict.NOISY:
        assert far.verdict is Verdict.NOISY


@given(st.floats(0, 60), st.floats(0.5, 10))
def test_the_repeats_asked_for_are_the_fewest_that_reach_the_target(stdev_pct: float, target_pct: float) -> None:
    n = repeats_for(stdev_pct, target_pct)
    assert half_width_pct(stdev_pct, n) <= target_pct
    assert n == 3 or half_width_pct(stdev_pct, n - 1) > target_pct
