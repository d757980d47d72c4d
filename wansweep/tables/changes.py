"""The nouns of compare: verdicts, and what changed of a figure, a stage, a case and a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wansweep.metrics import Metric
from wansweep.tables.difference import Difference
from wansweep.tables.pairing import MatchedBy
from wansweep.tables.surroundings import Surroundings
from wansweep.tables.thresholds import Threshold


class Verdict(StrEnum):
    """What compare says of a figure or a case. The worst first."""

    FAILS = "fails"
    SLOWER = "slower"
    MORE_GB = "more GB"
    RUNS = "runs again"
    FASTER = "faster"
    FEWER_GB = "fewer GB"
    INCONCLUSIVE = "inconclusive"
    SAME = "same"
    NOT_COMPARABLE = "not comparable"
    ONLY_IN_BASE = "only in base"
    ONLY_IN_HEAD = "only in head"

    @property
    def is_regression(self) -> bool:
        """Whether it should stop a change."""
        return self in (Verdict.FAILS, Verdict.SLOWER, Verdict.MORE_GB)


CHANGED = (Verdict.FAILS, Verdict.SLOWER, Verdict.MORE_GB, Verdict.RUNS, Verdict.FASTER, Verdict.FEWER_GB)
COMPARED = (*CHANGED, Verdict.INCONCLUSIVE, Verdict.SAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureChange:
    """One figure on both sides.

    Attributes:
        threshold: Its row of the table.
        difference: Head less base.
        adjusted_p: After Holm's correction; null where neither side was repeated.
        verdict: On it.
    """

    threshold: Threshold
    difference: Difference
    adjusted_p: float | None
    verdict: Verdict

    @property
    def metric(self) -> Metric:
        """Which figure."""
        return self.threshold.metric


@dataclass(frozen=True, kw_only=True, slots=True)
class StageChange:
    """One figure of one stage. Holm's correction is over the stages of the case; they say where a change is and never decide the exit code."""

    stage: str
    change: FigureChange


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseChange:
    """One case of either run.

    Attributes:
        label: As the base calls it, or the head where the base does not have it.
        case_id: Likewise.
        matched_by: Null for a case that one side has.
        verdicts: The worst first; one for a case that nothing changed in.
        why: Outcomes, or why nothing can be said; empty where the figures speak.
        figures: Those that both sides have.
        stages: Likewise, in the order of the run.
    """

    label: str
    case_id: str
    matched_by: MatchedBy | None
    verdicts: tuple[Verdict, ...]
    why: str
    figures: tuple[FigureChange, ...] = ()
    stages: tuple[StageChange, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs.

    Attributes:
        cases: Every case of either, once.
        surroundings: How their environments differ.
        comparisons: Figures that Holm's correction is over.
        mean_ratio: Geometric mean of head's over base's total time; null without a pair that has it.
    """

    cases: tuple[CaseChange, ...]
    surroundings: Surroundings
    comparisons: int
    mean_ratio: float | None

    @property
    def has_regression(self) -> bool:
        """Whether any case became worse."""
        return any(verdict.is_regression for case in self.cases for verdict in case.verdicts)

    @property
    def is_empty(self) -> bool:
        """Whether nothing could be compared."""
        return not any(verdict in COMPARED for case in self.cases for verdict in case.verdicts)
