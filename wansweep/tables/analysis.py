"""Where a case's time went, and what to do about it: rules over its stages, each with its evidence, an action, or what it lacked.

"No significant bottleneck" is said only when every rule had its data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from wansweep.record import StageKind

# Shares of Total_Execution above which a part is worth a line.
LOADING_SHARE = 0.25
SWAP_SHARE = 0.05
VAE_SHARE = 0.25
UNATTRIBUTED_SHARE = 0.01
# The report that wansweep grew from called an inference stage healthy from 90 % SM activity on.
HEALTHY_SM_PCT = 90.0


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


def analyse(stages: pl.DataFrame) -> tuple[list[Finding], list[NoData]]:
    """Findings over one case's stages (a row a stage: kind, stage, duration_s and the measured columns), and rules without data."""
    answers = [rule(stages) for rule in _RULES]
    return [a for a in answers if isinstance(a, Finding)], [a for a in answers if isinstance(a, NoData)]


def _seconds(stages: pl.DataFrame, *kinds: StageKind) -> float:
    return float(stages.filter(pl.col("kind").is_in([str(kind) for kind in kinds]))["duration_s"].sum())


def _loading(stages: pl.DataFrame) -> Finding | NoData | None:
    total, load = _seconds(stages, StageKind.TOTAL_EXECUTION), _seconds(stages, StageKind.MODEL_INITIALIZATION)
    if load <= LOADING_SHARE * total:
        return None
    evidence = f"Model_Initialization takes {load:.2f} s of {total:.2f} s ({100 * load / total:.0f} %)."
    return Finding(evidence=evidence, action="Keep the process for more than one video, or load from a local folder in the run's own dtype.")


def _swap(stages: pl.DataFrame) -> Finding | NoData | None:
    total, swap = _seconds(stages, StageKind.TOTAL_EXECUTION), _seconds(stages, StageKind.STEP_LOADING)
    if swap <= SWAP_SHARE * total:
        return None
    worst = stages.filter(pl.col("kind") == str(StageKind.STEP_LOADING)).sort("duration_s").row(-1, named=True)
    share = f"{swap:.2f} s of {total:.2f} s ({100 * swap / total:.0f} %)"
    evidence = f"Placing experts takes {share}, {worst['duration_s']:.2f} s of it in {worst['stage']}."
    return Finding(evidence=evidence, action="Keep both experts resident (offload=none) if they fit.")


def _vae(stages: pl.DataFrame) -> Finding | NoData | None:
    total, vae = _seconds(stages, StageKind.TOTAL_EXECUTION), _seconds(stages, StageKind.VAE_DECODING)
    if vae <= VAE_SHARE * total:
        return None
    evidence = f"VAE_Decoding takes {vae:.2f} s of {total:.2f} s ({100 * vae / total:.0f} %)."
    return Finding(evidence=evidence, action="With so few steps the decode weighs most; more steps or fewer frames change the balance.")


def _unattributed(stages: pl.DataFrame) -> Finding | NoData | None:
    total = _seconds(stages, StageKind.TOTAL_EXECUTION)
    rest = total - _seconds(stages, *(k for k in StageKind if k not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)))
    if rest <= UNATTRIBUTED_SHARE * total:
        return None
    evidence = f"{rest:.3f} s of {total:.2f} s ({100 * rest / total:.1f} %) are in no stage."
    return Finding(evidence=evidence, action="Read the other shares with that much doubt.")


def _low_sm(stages: pl.DataFrame) -> Finding | NoData | None:
    steps = stages.filter(pl.col("kind") == str(StageKind.STEP_INFERENCE))
    if steps["sm_active_pct"].null_count() == steps.height:
        return NoData(rule="low SM activity", lacked="SM activity")
    low = steps.filter(pl.col("sm_active_pct") < HEALTHY_SM_PCT)
    if low.is_empty():
        return None
    named = ", ".join(f"{row['stage']} {row['sm_active_pct']:.1f} %" for row in low.head(3).iter_rows(named=True))
    more = f" and {low.height - 3} more" if low.height > 3 else ""
    return Finding(
        evidence=f"SM activity is under {HEALTHY_SM_PCT:.0f} % in {named}{more}.", action="Check kernel efficiency and the host's pace."
    )


def _memory(stages: pl.DataFrame) -> Finding | NoData | None:
    if stages["peak_reserved_bytes"].null_count() == stages.height:
        return NoData(rule="memory near the GPU's limit", lacked="GPU memory")
    return None


_RULES: tuple[Callable[[pl.DataFrame], Finding | NoData | None], ...] = (_loading, _swap, _vae, _unattributed, _low_sm, _memory)
