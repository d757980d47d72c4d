"""What a rule of the performance analysis says, and how it reads one case's stages.

A rule is a function of the case's typical stages (`typical.typical_stages`) and one record of it: a `Finding`, `NoData` when it could not be
applied, or None when it was applied and has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from wansweep.record import Record, StageKind
from wansweep.units import GIB

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A bottleneck, with its evidence in numbers and what to do."""

    evidence: str
    action: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoData:
    """A rule that could not be applied, and what it lacked."""

    rule: str
    lacked: str


Answer: TypeAlias = Finding | NoData | None
Rule: TypeAlias = Callable[[pl.DataFrame, Record | None], Answer]


def of_kind(stages: pl.DataFrame, *kinds: StageKind) -> pl.DataFrame:
    """The stages of some kinds."""
    return stages.filter(pl.col("kind").is_in([str(kind) for kind in kinds]))


def seconds(stages: pl.DataFrame, *kinds: StageKind) -> float:
    """How long the stages of some kinds took together."""
    return float(of_kind(stages, *kinds)["duration_s"].sum())


def total_s(stages: pl.DataFrame) -> float:
    """Seconds of Total_Execution."""
    return seconds(stages, StageKind.TOTAL_EXECUTION)


def largest(stages: pl.DataFrame, name: str) -> float | None:
    """The largest value of a figure over the stages; null when none has it."""
    values = stages[name].drop_nulls().to_list()
    return max(values) if values else None


def increase(stages: pl.DataFrame, name: str) -> float | None:
    """What a counter gained over the whole run: as Total_Execution has it, else the sum of the other stages; null without either."""
    whole = of_kind(stages, StageKind.TOTAL_EXECUTION)[name].drop_nulls().to_list()
    parts = stages.filter(pl.col("kind") != str(StageKind.TOTAL_EXECUTION))[name].drop_nulls().to_list()
    return float(whole[0]) if whole else float(sum(parts)) if parts else None


def weighted(stages: pl.DataFrame, *names: str) -> float | None:
    """The mean over time of the first of some percentages that a stage has, over the stages that have one; null when none does."""
    value = pl.coalesce(names)
    having = stages.filter(value.is_not_null() & (pl.col("duration_s") > 0))
    if having.is_empty():
        return None
    return float(having.select((value * pl.col("duration_s")).sum() / pl.col("duration_s").sum()).item())


def gib(count: float) -> str:
    """Bytes as text: ``53.23 GiB``."""
    return f"{count / GIB:.2f} GiB"


def share(part_s: float, whole_s: float) -> str:
    """Seconds and their share: ``74.43 s of 342.16 s (22 %)``."""
    of_it = f" ({100 * part_s / whole_s:.0f} %)" if whole_s else ""  # an imported report may state 0.00 s
    return f"{part_s:.2f} s of {whole_s:.2f} s{of_it}"
