"""Rules on memory: what sets the peak, how near the GPU's limit it is, and bytes that need not be there."""

from __future__ import annotations

import polars as pl

from wansweep.levers import Dtype
from wansweep.record import Record, StageKind
from wansweep.tables.finding import Answer, Finding, NoData, gib, largest, of_kind
from wansweep.units import GIB

NEAR_LIMIT = 0.9
# By so much a decode's peak has to stand out before tiling it would free something.
VAE_EXCESS = 1.05
FRAGMENTED = 0.2
FRAGMENTED_BYTES = GIB
_CAST_PARTS = ("transformer", "transformer_2", "text_encoder")
_LIMIT_RULE = "memory near the GPU's limit"


def near_limit(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether the run came within a tenth of what the GPU that ran has, by the largest of what was measured."""
    figures = {"used on the device": "device_used_bytes", "reserved": "peak_reserved_bytes", "allocated": "peak_allocated_bytes"}
    peaks = {word: peak for word, name in figures.items() if (peak := largest(stages, name)) is not None}
    if not peaks:
        return NoData(rule=_LIMIT_RULE, lacked="GPU memory")
    limits = [(rank.device_total_bytes, rank.device_name) for rank in (record.ranks if record else ()) if rank.device_total_bytes is not None]
    if not limits:
        return NoData(rule=_LIMIT_RULE, lacked="the memory that the GPU has")
    word, (limit, name) = max(peaks, key=lambda one: peaks[one]), min(limits)
    if peaks[word] < NEAR_LIMIT * limit:
        return None
    evidence = f"{gib(peaks[word])} {word} are {100 * peaks[word] / limit:.0f} % of the {gib(limit)} of {name}."
    if peaks[word] > limit:
        return Finding(evidence=evidence, action="A GPU cannot hold more than it has: the figure or the device's name is not this run's.")
    return Finding(evidence=evidence, action="A little more of anything ends in out of memory; offload, or fewer pixels or frames, make room.")


def vae_sets_peak(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether the decode, and not the steps, decides which GPU the case fits on."""
    del record
    decode = largest(of_kind(stages, StageKind.VAE_DECODING), "peak_allocated_bytes")
    steps = largest(of_kind(stages, StageKind.STEP_INFERENCE), "peak_allocated_bytes")
    if decode is None or steps is None:
        return NoData(rule="VAE decode setting the memory peak", lacked="GPU memory")
    if decode <= VAE_EXCESS * steps:
        return None
    return Finding(
        evidence=f"VAE_Decoding sets the memory peak: {gib(decode)}, where the steps need {gib(steps)}.",
        action="Decoded in tiles, the case would fit where its steps do.",
    )


def fragmentation(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether torch's allocator held far more than it had given out."""
    del record
    allocated, reserved = largest(stages, "peak_allocated_bytes"), largest(stages, "peak_reserved_bytes")
    if allocated is None or reserved is None:
        return NoData(rule="allocator fragmentation", lacked="GPU memory")
    if reserved - allocated <= max(FRAGMENTED * reserved, FRAGMENTED_BYTES):
        return None
    return Finding(
        evidence=f"The allocator reserved {gib(reserved)} for a peak of {gib(allocated)} allocated: {gib(reserved - allocated)} lay idle.",
        action="Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.",
    )


def fp32_weights(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether a case in half precision keeps its weights in fp32, as under autocast."""
    del stages
    if record is None or record.resolved is None:
        return NoData(rule="fp32 weights under autocast", lacked="the number formats as loaded")
    if record.case.dtype == Dtype.FP32:
        return None
    wide = [part for part in _CAST_PARTS if record.resolved.dtypes.get(part) == "float32"]
    if not wide:
        return None
    return Finding(
        evidence=f"{' and '.join(wide)} {'are' if len(wide) > 1 else 'is'} float32 in a case in {record.case.dtype}: "
        "4 bytes a weight in memory and on every way, where 2 do.",
        action="Load in the case's own dtype; autocast casts what it computes and leaves what it stores.",
    )
