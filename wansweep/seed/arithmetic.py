"""The seed's own arithmetic, faults included: Total_Execution's load on top of what it contains, plain means over steps, any card an L40S."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from wansweep.seed.document import Overall, Section, SeedStage

LOW_SM_PCT = 90.0
HIGH_GIB = 40.0
HEALTHY = "No significant bottlenecks detected. GPU utilization is healthy."
BOTTLENECKS = "**Bottlenecks Detected:**"


def section(name: str, stages: Sequence[SeedStage], *, duration_s: float, line: int = 0) -> Section:
    """A case's breakdown as the seed would have made it from its stages and its total duration."""
    steps = [stage for stage in stages if stage.is_inference]
    peak_gib = max((stage.gpu_gib for stage in stages), default=0.0)
    overall = Overall(
        duration_s=duration_s,
        step_s=_mean([stage.duration_s for stage in steps]),
        peak_gib=peak_gib,
        sm_pct=_mean([stage.sm_pct for stage in steps]),
        load=sum(stage.load for stage in stages),
    )
    return Section(
        line=line,
        name=name,
        overall=overall,
        stages=tuple(stages),
        cpu_pct=_mean([stage.cpu_pct for stage in steps]),
        inference_load=sum(stage.load for stage in steps),
        analysis=analysis(stages),
        overview=overview(peak_gib),
    )


def analysis(stages: Sequence[SeedStage]) -> tuple[str, ...]:
    """Its one rule: a step whose SM activity is under 90 %."""
    low = [bottleneck(stage.name, stage.sm_pct) for stage in stages if stage.is_inference and stage.sm_pct < LOW_SM_PCT]
    return (BOTTLENECKS, *low) if low else (HEALTHY,)


def bottleneck(stage: str, sm_pct: float) -> str:
    """Its line on a step with low SM activity."""
    return f"- Inference stage '{stage}' has low SM activity ({sm_pct:.2f}%), check kernel efficiency."


def overview(peak_gib: float) -> tuple[str, ...]:
    """Its line on memory, which takes every card for an L40S."""
    verdict = "High VRAM usage, close to 48GB limit on L40S." if peak_gib > HIGH_GIB else "VRAM usage is within safe margins."
    return (f"- Peak GPU Memory reached {peak_gib:.2f} GB. {verdict}",)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
