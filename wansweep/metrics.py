"""METRICS: the one table of figures.

A figure exists here first: its name (a column of summary.parquet), label, unit, digits, which direction is better, and how
it folds: over the ranks of a trial, and then over the trials of a case (always the median of what was measured, with n and the
spread kept). Producers fill columns by these names; renderers take label, unit and digits from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wansweep.units import BYTES, COUNT, JOULES, PERCENT, SECONDS, SM_SECONDS, TFLOPS, Unit, show


class Better(Enum):
    """Which direction of a figure is an improvement."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


class Fold(Enum):
    """How the ranks of one trial become one figure."""

    MAX = "max"
    SUM = "sum"
    MEAN = "mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One figure of a case.

    Attributes:
        name: Column name; ends in the unit it is stored in.
        label: Short heading.
        unit: Unit stored and shown.
        digits: Decimals shown.
        better: Direction of improvement.
        across_ranks: How ranks fold; the slowest rank is the trial's time, the fullest GPU its memory.
    """

    name: str
    label: str
    unit: Unit
    digits: int
    better: Better = Better.LOWER
    across_ranks: Fold = Fold.MAX

    def show(self, value: float | None) -> str:
        """The value as text in the shown unit, ``n/a`` when it was not measured."""
        return show(value, self.unit, digits=self.digits)

    @property
    def heading(self) -> str:
        """Label and unit, as a column heading."""
        return f"{self.label} ({self.unit.symbol})" if self.unit.symbol else self.label


METRICS: tuple[Metric, ...] = (
    Metric(name="total_s", label="Time", unit=SECONDS, digits=2),
    Metric(name="step_s", label="Step", unit=SECONDS, digits=3),
    Metric(name="step_s_stdev", label="Step stdev", unit=SECONDS, digits=3),
    Metric(name="load_s", label="Load time", unit=SECONDS, digits=2),
    Metric(name="text_encode_s", label="T5", unit=SECONDS, digits=2),
    Metric(name="vae_decode_s", label="VAE decode", unit=SECONDS, digits=2),
    Metric(name="save_s", label="Save", unit=SECONDS, digits=2),
    Metric(name="peak_allocated_bytes", label="Peak allocated", unit=BYTES, digits=2),
    Metric(name="peak_reserved_bytes", label="Peak reserved", unit=BYTES, digits=2),
    Metric(name="peak_device_bytes", label="Peak device", unit=BYTES, digits=2),
    Metric(name="peak_host_bytes", label="Peak host", unit=BYTES, digits=2, across_ranks=Fold.SUM),
    Metric(name="sm_active_pct", label="SM Act", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="gpu_busy_pct", label="GPU Busy", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="energy_j", label="Energy", unit=JOULES, digits=1, across_ranks=Fold.SUM),
    Metric(name="tflops", label="Achieved", unit=TFLOPS, digits=1, better=Better.HIGHER, across_ranks=Fold.SUM),
    Metric(name="mfu_pct", label="MFU", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="compute_load", label="Comp Load", unit=SM_SECONDS, digits=0, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="unattributed_pct", label="Unattributed", unit=PERCENT, digits=2),
    Metric(name="predicted_total_s", label="Predicted time", unit=SECONDS, digits=2, better=Better.NEITHER),
    Metric(name="predicted_step_s", label="Predicted step", unit=SECONDS, digits=3, better=Better.NEITHER),
    Metric(name="predicted_peak_bytes", label="Predicted peak", unit=BYTES, digits=2, better=Better.NEITHER),
)
METRIC: dict[str, Metric] = {metric.name: metric for metric in METRICS}

STAGE_METRICS: tuple[Metric, ...] = (
    Metric(name="duration_s", label="Time", unit=SECONDS, digits=3),
    Metric(name="peak_allocated_bytes", label="Peak allocated", unit=BYTES, digits=2),
    Metric(name="peak_reserved_bytes", label="Peak reserved", unit=BYTES, digits=2),
    Metric(name="device_used_bytes", label="Device used", unit=BYTES, digits=2),
    Metric(name="host_bytes", label="Sys Mem", unit=BYTES, digits=2, across_ranks=Fold.SUM),
    Metric(name="cpu_pct", label="CPU", unit=PERCENT, digits=1, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="sm_active_pct", label="SM Act", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="gpu_busy_pct", label="GPU Busy", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="energy_j", label="Energy", unit=JOULES, digits=3, across_ranks=Fold.SUM),
    Metric(name="compute_load", label="Comp Load", unit=SM_SECONDS, digits=0, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="n_samples", label="Samples", unit=COUNT, digits=0, better=Better.NEITHER, across_ranks=Fold.SUM),
)
STAGE_METRIC: dict[str, Metric] = {metric.name: metric for metric in STAGE_METRICS}
