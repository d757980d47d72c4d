"""Whether a case's repeats agree well enough to be believed, and what to do when they do not.

The measure is Student's 95 % interval of the mean over trials: half its width over the median. pyperf and AIPerf judge alike; with the handful
of trials that a video model allows, a bootstrap would only resample the same three numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

TARGET_PCT = 2.0
# Two values have an interval too (12.7 standard errors), which says nothing that their range does not say better.
MIN_TRIALS = 3
# Upper 0.975 quantiles of Student's t by degrees of freedom: NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2.
_T_975 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    12: 2.179,
    15: 2.131,
    20: 2.086,
    25: 2.060,
    30: 2.042,
    40: 2.021,
    60: 2.000,
    100: 1.984,
}


class Verdict(StrEnum):
    """What the repeats of a case say about its figures."""

    STABLE = "stable"
    NOISY = "noisy"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability:
    """The verdict on a case's repeats.

    Attributes:
        verdict: stable, noisy or insufficient.
        half_width_pct: Half the 95 % interval, in percent of the median; null with fewer than `MIN_TRIALS`.
        advice: The verdict in words with the next action: ``noisy: +-6.1 %; about 7 more repeats for +-2 %``.
    """

    verdict: Verdict
    half_width_pct: float | None
    advice: str


def assess(*, n: int, median: float | None, stdev: float | None) -> Stability:
    """The verdict on one figure over the trials of a case.

    Args:
        n: Trials that have the figure.
        median: Of them; null without any.
        stdev: Of the sample, in the figure's unit; null for fewer than two.
    """
    if n < MIN_TRIALS or not median or median < 0 or stdev is None:
        more = max(1, MIN_TRIALS - n)
        advice = f"insufficient: n={n}; {more} more repeat{'s' if more > 1 else ''} would give an interval"
        return Stability(verdict=Verdict.INSUFFICIENT, half_width_pct=None, advice=advice)
    stdev_pct = 100 * stdev / median
    half_pct = half_width_pct(stdev_pct, n)
    if half_pct <= TARGET_PCT:
        return Stability(verdict=Verdict.STABLE, half_width_pct=half_pct, advice=f"stable: +-{half_pct:.1f} % over n={n}")
    more = repeats_for(stdev_pct, TARGET_PCT) - n
    advice = f"noisy: +-{half_pct:.1f} % over n={n}; about {more} more repeat{'s' if more > 1 else ''} for +-{TARGET_PCT:g} %"
    return Stability(verdict=Verdict.NOISY, half_width_pct=half_pct, advice=advice)


def half_width_pct(stdev_pct: float, n: int) -> float:
    """Half the 95 % interval of the mean of n values, in the unit of their standard deviation."""
    return t_975(n - 1) * stdev_pct / math.sqrt(n)


def repeats_for(stdev_pct: float, target_pct: float) -> int:
    """How many trials, spread like those measured, would give an interval of +- the target."""
    enough = MIN_TRIALS
    while half_width_pct(stdev_pct, enough) > target_pct:
        enough *= 2
    low = MIN_TRIALS
    while low < enough:
        middle = (low + enough) // 2
        low, enough = (low, middle) if half_width_pct(stdev_pct, middle) <= target_pct else (middle + 1, enough)
    return enough


def t_975(freedom: int) -> float:
    """The 0.975 quantile of Student's t; between two rows of the table the wider one, beyond it its last."""
    assert freedom >= 1, freedom
    return _T_975[max(row for row in _T_975 if row <= freedom)]
