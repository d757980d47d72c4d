"""How often compare is wrong: false alarms on A/A resamples, and power for a 5 % slow-down, by test and by n. Simulated trials, no video."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Sequence

from wansweep.tables.changes import Verdict
from wansweep.tables.comparison import Sample, judge
from wansweep.tables.difference import LEVEL
from wansweep.tables.thresholds import CASE_THRESHOLDS

SEED = 20
TOTAL = next(row for row in CASE_THRESHOLDS if row.metric.name == "total_s")
# A report as large as the offload sweep's: cases times figures, all with noise.
CASES, FIGURES = 12, 5
BASE_S = 100.0
REPORTS = 200
SINGLES = 2000
ALARMS = (Verdict.SLOWER, Verdict.FASTER)

Draw = Callable[[random.Random, float], float]


def _normal(rng: random.Random, noise: float) -> float:
    return BASE_S * rng.gauss(1, noise)


def _one_sided(rng: random.Random, noise: float) -> float:
    """Mostly quiet, and now and then a slow trial: what a busy host does."""
    return BASE_S * (1 + noise * rng.expovariate(1))


def run() -> None:
    """Print false alarms per comparison and per report, power, and the same of the tests that were not chosen."""
    rng = random.Random(SEED)
    print(f"A/A, {SINGLES} comparisons, {REPORTS} reports of {CASES} cases x {FIGURES} figures (target: under 5 % false alarms):")
    for n, noise, (name, draw) in itertools.product((2, 3, 5), (0.01, 0.05), (("normal", _normal), ("one-sided", _one_sided))):
        single = _share(lambda n=n, noise=noise, draw=draw: _alarms(rng, 1, n, noise, draw), SINGLES)
        report = _share(lambda n=n, noise=noise, draw=draw: _alarms(rng, CASES * FIGURES, n, noise, draw), REPORTS)
        print(f"  n={n}, {100 * noise:.0f} % {name} noise: {100 * single:.2f} % a comparison, {100 * report:.2f} % a report")
    print("power: a 5 % slow-down at 1 % noise is called slower (target over 90 % at n=5):")
    for n in (2, 3, 4, 5):
        alone = _share(lambda n=n: _found(rng, n, 0), SINGLES)
        among = _share(lambda n=n: _found(rng, n, CASES * FIGURES - 1), REPORTS)
        print(f"  n={n}: {100 * alone:.1f} % alone, {100 * among:.1f} % as one of {CASES * FIGURES} comparisons")
    _others(rng)


def _share(one: Callable[[], bool], times: int) -> float:
    return sum(one() for _ in range(times)) / times


def _sample(rng: random.Random, n: int, noise: float, draw: Draw, *, slower: float = 1.0) -> Sample:
    base, head = (tuple(draw(rng, noise) for _ in range(n)) for _ in range(2))
    return Sample(threshold=TOTAL, base=base, head=tuple(slower * value for value in head))


def _alarms(rng: random.Random, comparisons: int, n: int, noise: float, draw: Draw) -> bool:
    """Whether a report of nothing but noise has an alarm in it."""
    return any(change.verdict in ALARMS for change in judge([_sample(rng, n, noise, draw) for _ in range(comparisons)]))


def _found(rng: random.Random, n: int, others: int) -> bool:
    """Whether a 5 % slow-down is found among others that are none."""
    samples = [_sample(rng, n, 0.01, _normal, slower=1.05), *(_sample(rng, n, 0.01, _normal) for _ in range(others))]
    return judge(samples)[0].verdict is Verdict.SLOWER


def _others(rng: random.Random) -> None:
    """The tests that were not chosen, with the same thresholds and a Bonferroni correction over the report."""
    level = LEVEL / (CASES * FIGURES)
    print(f"not chosen, at {100 * LEVEL:g} % and corrected for {CASES * FIGURES} (alarms: of reports at 5 % one-sided noise; power: n=5, n=3):")
    for name, p in (("exact permutation of the means", permutation_p), ("bootstrap of the means", lambda b, h: bootstrap_p(rng, b, h))):
        told = []
        for at in (LEVEL, level):
            alarm = _share(lambda p=p, at=at: any(_passes(_sample(rng, 5, 0.05, _one_sided), p, at) for _ in range(CASES * FIGURES)), 20)
            power = [_share(lambda p=p, at=at, n=n: _passes(_sample(rng, n, 0.01, _normal, slower=1.05), p, at), 200) for n in (5, 3)]
            told.append(f"{100 * alarm:.0f} % alarms, power {100 * power[0]:.0f} % and {100 * power[1]:.0f} %")
        print(f"  {name}: at {100 * LEVEL:g} % {told[0]}; corrected {told[1]}")


def _passes(sample: Sample, p: Callable[[Sequence[float], Sequence[float]], float], level: float) -> bool:
    change = statistics.fmean(sample.head) - statistics.fmean(sample.base)
    return abs(change) > TOTAL.margin(statistics.fmean(sample.base)) and p(sample.base, sample.head) <= level


def permutation_p(base: Sequence[float], head: Sequence[float]) -> float:
    """Share of the ways to split the trials in two whose means are at least as far apart."""
    both = [*base, *head]
    seen = abs(statistics.fmean(head) - statistics.fmean(base))
    total = sum(both)
    splits = list(itertools.combinations(range(len(both)), len(base)))
    far = 0
    for split in splits:
        part = sum(both[i] for i in split)
        far += abs((total - part) / len(head) - part / len(base)) >= seen * (1 - 1e-12)
    return far / len(splits)


def bootstrap_p(rng: random.Random, base: Sequence[float], head: Sequence[float], times: int = 500) -> float:
    """Twice the share of resamples whose means are ordered the other way."""
    apart = [statistics.fmean(rng.choices(head, k=len(head))) - statistics.fmean(rng.choices(base, k=len(base))) for _ in range(times)]
    up = sum(value > 0 for value in apart) / times
    return 2 * min(up, 1 - up)
