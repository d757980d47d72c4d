"""Whether the few trials of two runs differ: Welch's t-test of the means, Holm's correction over a report.

With n of 2 to 5 a permutation test cannot reach small levels (3 against 3: 0.1 at best; 5 against 5: 0.008, too much for a report of a dozen
comparisons), and a bootstrap resamples the same handful. `python -m benchmarks comparing` prints false alarms and power of all three.

Papers: B. L. Welch, Biometrika 34 (1947) 28; S. Holm, Scandinavian Journal of Statistics 6 (1979) 65.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from wansweep.tables.stability import t_975

# Promised are fewer false alarms than 5 %: a lone comparison whose noise is beyond its thresholds raises as many as the level says.
LEVEL = 0.04
_PANELS = 256
# More is the normal distribution within 1 % of t, and a peak too narrow for the panels.
_MOST_FREEDOM = 200.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Head less base of one figure, over trials.

    Attributes:
        base: Mean of the base's trials.
        head: Mean of the head's.
        base_n: Trials of the base.
        head_n: Trials of the head.
        half_width: Half the 95 % interval of head less base; null where neither side was repeated.
        p: Two-sided, of no difference; null likewise.
    """

    base: float
    head: float
    base_n: int
    head_n: int
    half_width: float | None
    p: float | None

    @property
    def change(self) -> float:
        """Head less base."""
        return self.head - self.base

    @property
    def percent(self) -> float | None:
        """The change in percent of the base; null where that is 0."""
        return 100 * self.change / self.base if self.base else None


def difference(base: Sequence[float], head: Sequence[float]) -> Difference:
    """Head less base, with the interval that the trials of both allow.

    One trial has no spread of its own: against several it is taken to spread as they do. One against one has no interval at all, and so is
    never significant.
    """
    means = {"base": statistics.fmean(base), "head": statistics.fmean(head), "base_n": len(base), "head_n": len(head)}
    if len(base) < 2 and len(head) < 2:
        return Difference(**means, half_width=None, p=None)  # type: ignore[arg-type]
    error, freedom = _error(base, head)
    change = abs(means["head"] - means["base"])
    if error <= 1e-12 * max(abs(means["base"]), abs(means["head"])):  # as peaks of a deterministic allocator: all alike
        return Difference(**means, half_width=0.0, p=1.0 if change <= error else 0.0)  # type: ignore[arg-type]
    half_width = t_975(max(1, math.floor(freedom))) * error
    return Difference(**means, half_width=half_width, p=two_sided_p(change / error, freedom))  # type: ignore[arg-type]


def _error(base: Sequence[float], head: Sequence[float]) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom."""
    if min(len(base), len(head)) < 2:
        several = base if len(base) > 1 else head
        return statistics.stdev(several) * math.sqrt(1 + 1 / len(several)), len(several) - 1
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (base, head)]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, 1.0
    return math.sqrt(variance), variance**2 / sum(part**2 / freedom for part, freedom in parts)


def two_sided_p(t: float, freedom: float) -> float:
    """How often Student's t is farther from 0 than ``t``.

    Its density is cos(x)^(freedom-1) in x = atan(t / sqrt(freedom)); both ends of the ratio by Simpson's rule.
    """
    power = min(freedom, _MOST_FREEDOM) - 1
    return min(1.0, _cosines(math.atan(abs(t) / math.sqrt(power + 1)), power) / _cosines(0.0, power))


def _cosines(begin: float, power: float) -> float:
    """The integral of cos(x)^power from ``begin`` to pi/2."""
    width = (math.pi / 2 - begin) / _PANELS
    # cos(x) seen from pi/2, where it is small.
    heights: list[float] = [max(0.0, math.sin((_PANELS - i) * width)) ** power for i in range(_PANELS + 1)]
    return width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p-values made larger so that all of a report together raise one false alarm in twenty (Holm); null stays null."""
    ordered = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(ordered):
        largest = max(largest, min(1.0, p * (len(ordered) - rank)))
        adjusted[i] = largest
    return adjusted
