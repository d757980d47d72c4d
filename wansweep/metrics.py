"""METRICS: the one table of figures.

A figure exists here first: its name (a column of summary.parquet), label, unit, digits, which direction is better, and how
it folds: over the ranks of a trial, and then over the trials of a case (always the median of what was measured, with n and the
spread kept). Producers fill columns by these names; renderers take label, unit and digits from here.

Of the steps of a trial: ``step_s`` is the plain mean over ALL steps, so that steps x step_s are the seconds of denoising, as users and the
published tables reckon; ``step_s_stdev`` is the standard deviation over them. What the first step has on top (first-run effects, allocator
growth) stands beside it: ``steady_step_s`` is the median of the steps after the first, ``first_step_ratio`` the first step over that median.
Of the trials of a case: ``total_s_spread`` and ``step_s_spread`` are standard deviations over trials, ``half_width_pct`` is half the
95 % interval of total_s over its median.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wansweep.units import (
    BYTES,
    BYTES_PER_S,
    CELSIUS,
    COUNT,
    DECIBELS,
    JOULES,
    MEGAHERTZ,
    PERCENT,
    SECONDS,
    SM_SECONDS,
    TFLOPS,
    TIMES,
    WATTS,
    Unit,
    show,
)


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
        peak: Of a stage's sampled figure the largest sample is kept, not the mean over time.
    """

    name: str
    label: str
    unit: Unit
    digits: int
    better: Better = Better.LOWER
    across_ranks: Fold = Fold.MAX
    peak: bool = False

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
    Metric(name="steady_step_s", label="Steady step", unit=SECONDS, digits=3),
    Metric(name="first_step_ratio", label="First step", unit=TIMES, digits=2),
    Metric(name="total_s_spread", label="Time stdev over trials", unit=SECONDS, digits=2),
    Metric(name="step_s_spread", label="Step stdev over trials", unit=SECONDS, digits=3),
    Metric(name="half_width_pct", label="95 % interval", unit=PERCENT, digits=1),
    Metric(name="load_s", label="Load time", unit=SECONDS, digits=2),
    Metric(name="text_encode_s", label="T5", unit=SECONDS, digits=2),
    Metric(name="vae_decode_s", label="VAE decode", unit=SECONDS, digits=2),
    Metric(name="save_s", label="Save", unit=SECONDS, digits=2),
    Metric(name="peak_allocated_bytes", label="Peak allocated", unit=BYTES, digits=2),
    Metric(name="peak_reserved_bytes", label="Peak reserved", unit=BYTES, digits=2),
    Metric(name="peak_device_bytes", label="Peak device", unit=BYTES, digits=2),
    Metric(name="peak_host_bytes", label="Peak host", unit=BYTES, digits=2, across_ranks=Fold.SUM),
    Metric(name="peak_pinned_bytes", label="Peak pinned", unit=BYTES, digits=2, across_ranks=Fold.SUM),
    Metric(name="sm_active_pct", label="SM Act", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="gpu_busy_pct", label="GPU Busy", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="energy_j", label="Energy", unit=JOULES, digits=1, across_ranks=Fold.SUM),
    Metric(name="tflops", label="Achieved", unit=TFLOPS, digits=1, better=Better.HIGHER, across_ranks=Fold.SUM),
    Metric(name="mfu_pct", label="MFU", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="compute_load", label="Comp Load", unit=SM_SECONDS, digits=0, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="load_coverage_pct", label="Load speaks for", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="energy_coverage_pct", label="Energy speaks for", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="unattributed_pct", label="Unattributed", unit=PERCENT, digits=2),
    Metric(name="communication_s", label="Communication", unit=SECONDS, digits=3, across_ranks=Fold.MEAN),
    # Folded over the ranks in tables.trials: of the ranks' own seconds of all steps.
    Metric(name="step_imbalance_pct", label="Imbalance", unit=PERCENT, digits=1),
    # Against the case's 1-GPU twin (tables.scaling).
    Metric(name="scaling_efficiency_pct", label="Scaling efficiency", unit=PERCENT, digits=1, better=Better.HIGHER),
    Metric(name="scaling_efficiency_step_pct", label="Scaling efficiency of a step", unit=PERCENT, digits=1, better=Better.HIGHER),
    # Against the case's lossless twin at the same seed (tables.drift).
    Metric(name="psnr_db", label="PSNR", unit=DECIBELS, digits=1, better=Better.HIGHER),
    Metric(name="ssim", label="SSIM", unit=COUNT, digits=4, better=Better.HIGHER),
    Metric(name="flip", label="FLIP", unit=COUNT, digits=3),
    Metric(name="latent_error", label="Latent error", unit=COUNT, digits=4),
    Metric(name="ssim_floor", label="SSIM floor", unit=COUNT, digits=4, better=Better.HIGHER),
    Metric(name="latent_error_floor", label="Latent error floor", unit=COUNT, digits=4),
    Metric(name="predicted_total_s", label="Predicted time", unit=SECONDS, digits=2, better=Better.NEITHER),
    Metric(name="predicted_step_s", label="Predicted step", unit=SECONDS, digits=3, better=Better.NEITHER),
    Metric(name="predicted_peak_bytes", label="Predicted peak", unit=BYTES, digits=2, better=Better.NEITHER),
)
METRIC: dict[str, Metric] = {metric.name: metric for metric in METRICS}

# What Stage.figures holds under these names; samples.py says of which kind the sampled ones are.
STAGE_FIGURES: tuple[Metric, ...] = (
    Metric(name="peak_allocated_bytes", label="Peak allocated", unit=BYTES, digits=2),
    Metric(name="peak_reserved_bytes", label="Peak reserved", unit=BYTES, digits=2),
    Metric(name="device_used_bytes", label="Device used", unit=BYTES, digits=2, peak=True),
    Metric(name="host_bytes", label="Sys Mem", unit=BYTES, digits=2, across_ranks=Fold.SUM, peak=True),
    Metric(name="pinned_bytes", label="Pinned", unit=BYTES, digits=2, across_ranks=Fold.SUM),
    Metric(name="cpu_pct", label="CPU", unit=PERCENT, digits=1, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="cpu_s", label="CPU time", unit=SECONDS, digits=2, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="read_bytes", label="Read from disk", unit=BYTES, digits=2, across_ranks=Fold.SUM),
    Metric(name="sm_active_pct", label="SM Act", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="gpu_busy_pct", label="GPU Busy", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="tensor_active_pct", label="Tensor", unit=PERCENT, digits=1, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="dram_active_pct", label="DRAM", unit=PERCENT, digits=1, better=Better.NEITHER, across_ranks=Fold.MEAN),
    Metric(name="pcie_rx_bytes_per_s", label="To the GPU", unit=BYTES_PER_S, digits=2, better=Better.NEITHER, across_ranks=Fold.MEAN),
    Metric(name="pcie_tx_bytes_per_s", label="From the GPU", unit=BYTES_PER_S, digits=2, better=Better.NEITHER, across_ranks=Fold.MEAN),
    Metric(name="power_w", label="Power", unit=WATTS, digits=0, across_ranks=Fold.SUM),
    Metric(name="temperature_c", label="Temperature", unit=CELSIUS, digits=0, peak=True),
    Metric(name="sm_clock_mhz", label="SM clock", unit=MEGAHERTZ, digits=0, better=Better.HIGHER, across_ranks=Fold.MEAN),
    Metric(name="throttle_power_s", label="Power-capped", unit=SECONDS, digits=2),
    Metric(name="throttle_thermal_s", label="Too hot", unit=SECONDS, digits=2),
    Metric(name="throttle_hw_power_brake_s", label="Power brake", unit=SECONDS, digits=2),
    Metric(name="compute_processes", label="Processes on the GPU", unit=COUNT, digits=0, better=Better.NEITHER, peak=True),
    Metric(name="swap_used_bytes", label="Swap", unit=BYTES, digits=2, peak=True),
    Metric(name="energy_j", label="Energy", unit=JOULES, digits=3, across_ranks=Fold.SUM),
    Metric(name="communication_s", label="Communication", unit=SECONDS, digits=3, across_ranks=Fold.MEAN),
)
STAGE_METRICS: tuple[Metric, ...] = (
    Metric(name="duration_s", label="Time", unit=SECONDS, digits=3),
    *STAGE_FIGURES,
    Metric(name="compute_load", label="Comp Load", unit=SM_SECONDS, digits=0, better=Better.NEITHER, across_ranks=Fold.SUM),
    # Of the figure that the load is made from.
    Metric(name="n_samples", label="Samples", unit=COUNT, digits=0, better=Better.NEITHER, across_ranks=Fold.SUM),
    Metric(name="coverage_pct", label="Coverage", unit=PERCENT, digits=0, better=Better.HIGHER, across_ranks=Fold.MEAN),
    # Of the stage over the ranks, the same on each of them.
    Metric(name="imbalance_pct", label="Imbalance", unit=PERCENT, digits=1),
)
STAGE_METRIC: dict[str, Metric] = {metric.name: metric for metric in STAGE_METRICS}
