"""From what on a difference between two runs matters: more than so many percent AND more than so much. What compare judges is this table."""

from __future__ import annotations

from dataclasses import dataclass

from wansweep.metrics import METRIC, STAGE_METRIC, Metric
from wansweep.units import MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """The least change of a figure that anybody would act on.

    Attributes:
        metric: Of METRICS.
        percent: Of the base.
        absolute: In the metric's stored unit.
    """

    metric: Metric
    percent: float
    absolute: float

    def margin(self, base: float) -> float:
        """The change, in the stored unit, beyond which both thresholds are passed."""
        return max(abs(base) * self.percent / 100, self.absolute)


def _row(metric: Metric, percent: float, absolute: float) -> Threshold:
    return Threshold(metric=metric, percent=percent, absolute=absolute)


# Loading depends on disks and page caches, so it may vary more; allocators round, contexts come and go in what a device uses.
CASE_THRESHOLDS: tuple[Threshold, ...] = (
    _row(METRIC["total_s"], 2, 0.05),
    _row(METRIC["step_s"], 2, 0.005),
    _row(METRIC["load_s"], 10, 0.5),
    _row(METRIC["text_encode_s"], 5, 0.1),
    _row(METRIC["vae_decode_s"], 3, 0.05),
    _row(METRIC["peak_allocated_bytes"], 1, 64 * MIB),
    _row(METRIC["peak_reserved_bytes"], 2, 128 * MIB),
    _row(METRIC["peak_device_bytes"], 2, 256 * MIB),
    _row(METRIC["peak_host_bytes"], 5, 512 * MIB),
)
STAGE_THRESHOLDS: tuple[Threshold, ...] = (
    _row(STAGE_METRIC["duration_s"], 3, 0.02),
    _row(STAGE_METRIC["peak_allocated_bytes"], 1, 64 * MIB),
)
