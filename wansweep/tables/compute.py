"""Achieved FLOP/s and the share of the GPUs' peak they are (MFU): the closed formula's FLOP over the measured seconds of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wansweep import hardware
from wansweep.levers import Weights
from wansweep.plan.flops import case_flop
from wansweep.plan.geometry import as_run
from wansweep.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """What a case's denoising steps achieved.

    Attributes:
        tflops: Of all ranks together; null with ``tflops_why``.
        mfu_pct: Of the sum of the ranks' dense peaks; null with ``mfu_pct_why``.
    """

    tflops: float | None
    tflops_why: str | None
    mfu_pct: float | None
    mfu_pct_why: str | None


def achieved(records: Sequence[Record], *, step_s: float | None) -> Compute:
    """TFLOP/s and MFU of a case's steps.

    Args:
        records: The trials that count.
        step_s: Seconds of a step, the mean over all of them.
    """
    if not records or not step_s:
        return _none("no step was timed")
    record = records[0]
    if why := _uncounted(record):
        return _none(why)
    flop_per_s = case_flop(as_run(record.case)).denoise_flop / record.case.steps / step_s
    peak = _peak_flops(record)
    return Compute(
        tflops=flop_per_s / 1e12,
        tflops_why=None,
        mfu_pct=None if isinstance(peak, str) else 100 * flop_per_s / peak,
        mfu_pct_why=peak if isinstance(peak, str) else None,
    )


def device_names(record: Record) -> tuple[str, ...]:
    """Of each rank's device; as the pipeline named it where a record does not say who the ranks were."""
    if record.ranks:
        return tuple(rank.device_name for rank in record.ranks)
    return (record.resolved.device_name,) * record.case.gpus if record.resolved else ()


def _uncounted(record: Record) -> str | None:
    """Why the formula does not hold for a record: it counts the real networks, running every block, on a GPU."""
    if record.imported:
        return "the imported report does not say what ran"
    if record.case.weights == Weights.TINY:
        return "tiny weights are not the network that the formula counts"
    if record.resolved is None or record.resolved.device != "cuda":
        return "no GPU ran it"
    if record.resolved.cache != "none":
        return f"cache {record.resolved.cache} leaves out work that the formula counts"
    return None


def _peak_flops(record: Record) -> float | str:
    """The ranks' dense peaks together, in FLOP/s, or why they are not known."""
    total = 0.0
    for name in device_names(record):
        gpu = hardware.find(name)
        if gpu is None:
            return f"{name} is not in the GPU table"
        peak = hardware.peak_flops(gpu, record.case.dtype)
        if peak is None:
            return f"{name} has no unit for {record.case.dtype}"
        total += peak
    return total


def _none(why: str) -> Compute:
    return Compute(tflops=None, tflops_why=why, mfu_pct=None, mfu_pct_why=why)
