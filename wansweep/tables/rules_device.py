"""Rules on what the GPU did: how busy it was, what it waited for, and whether it was held back."""

from __future__ import annotations

import polars as pl

from wansweep.record import Record, StageKind
from wansweep.tables.finding import Answer, Finding, NoData, increase, of_kind, seconds, share, total_s, weighted

# The report that wansweep grew from called an inference stage healthy from 90 % SM activity on.
HEALTHY_SM_PCT = 90.0
IDLE_PCT = 10.0
BUSY_DRAM_PCT = 60.0
HOST_BOUND_GPU_PCT = 80.0
# cpu_pct is in percent of one core, and one Python thread feeds the GPU.
HOST_BOUND_CPU_PCT = 90.0
T5_SHARE = 0.03
T5_S = 2.0
POWER_SHARE = 0.2
THERMAL_SHARE = 0.01
_COMPUTING = (StageKind.T5_ENCODING, StageKind.STEP_INFERENCE, StageKind.VAE_DECODING)
_THREE = 3


def low_sm(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether SMs stood idle in a step."""
    del record
    steps = of_kind(stages, StageKind.STEP_INFERENCE)
    if steps["sm_active_pct"].null_count() == steps.height:
        return NoData(rule="low SM activity", lacked="SM activity")
    low = steps.filter(pl.col("sm_active_pct") < HEALTHY_SM_PCT)
    if low.is_empty():
        return None
    return Finding(
        evidence=f"SM activity is under {HEALTHY_SM_PCT:.0f} % in {_named(low, 'sm_active_pct')}.",
        action="Check kernel efficiency and the host's pace.",
    )


def memory_bound(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether a computing stage with idle SMs kept the device memory busy."""
    del record
    computing = of_kind(stages, *_COMPUTING).filter(pl.col("sm_active_pct").is_not_null())
    if computing.is_empty() or computing["dram_active_pct"].null_count() == computing.height:
        return NoData(rule="bound by device memory", lacked="SM activity" if computing.is_empty() else "DRAM activity")
    bound = computing.filter((pl.col("sm_active_pct") < HEALTHY_SM_PCT) & (pl.col("dram_active_pct") >= BUSY_DRAM_PCT))
    if bound.is_empty():
        return None
    return Finding(
        evidence=f"With SMs under {HEALTHY_SM_PCT:.0f} %, the device memory is active {_named(bound, 'dram_active_pct')}.",
        action="It waits for its own memory: fused kernels (compile) or fewer bytes (a smaller number format) help, more FLOP/s do not.",
    )


def host_bound(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether the GPU waited for the host to hand it work in the steps."""
    del record
    steps = of_kind(stages, StageKind.STEP_INFERENCE)
    gpu, cpu = weighted(steps, "sm_active_pct", "gpu_busy_pct"), weighted(steps, "cpu_pct")
    if gpu is None or cpu is None:
        return NoData(rule="steps bound by the host", lacked="GPU activity" if gpu is None else "CPU seconds")
    if gpu >= HOST_BOUND_GPU_PCT or cpu < HOST_BOUND_CPU_PCT:
        return None
    return Finding(
        evidence=f"In the steps the GPU is {gpu:.1f} % active while the host uses {cpu:.0f} % of a core.",
        action="Hand it work in larger pieces: compile, CUDA graphs, or an offload mode that moves fewer, larger groups.",
    )


def t5_on_cpu(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether a long text encoding left the GPU idle, and so ran on the CPU or waited for its weights; a short one needs no data."""
    t5, total = of_kind(stages, StageKind.T5_ENCODING), total_s(stages)
    took = seconds(t5, StageKind.T5_ENCODING)
    if took < max(T5_S, T5_SHARE * total) or (record and record.resolved and record.resolved.device == "cpu"):
        return None
    gpu = weighted(t5, "sm_active_pct", "gpu_busy_pct")
    if gpu is None:
        return NoData(rule="T5 on the CPU", lacked="GPU activity")
    if gpu >= IDLE_PCT:
        return None
    cpu = weighted(t5, "cpu_pct")
    host = f" and the host at {cpu:.0f} % of a core" if cpu is not None else ""
    return Finding(
        evidence=f"T5_Encoding takes {share(took, total)} with the GPU {gpu:.1f} % active{host}.",
        action="Encode on the GPU (offload=model moves T5 there and back), or keep the embeddings of prompts that come again.",
    )


def power_capped(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether the power limit held the clocks down for a considerable part of the run."""
    del record
    capped, total = increase(stages, "throttle_power_s"), total_s(stages)
    if capped is None:
        return NoData(rule="power capping", lacked="throttle time")
    if capped <= POWER_SHARE * total:
        return None
    return Finding(
        evidence=f"The power limit held the clocks down for {share(capped, total)}.",
        action="Compare only with runs under the same limit; a higher one (nvidia-smi -pl) is faster.",
    )


def thermally_capped(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether heat held the clocks down."""
    del record
    hot, total = increase(stages, "throttle_thermal_s"), total_s(stages)
    if hot is None:
        return NoData(rule="thermal capping", lacked="throttle time")
    if hot <= THERMAL_SHARE * total:
        return None
    return Finding(
        evidence=f"Heat held the clocks down for {share(hot, total)}.",
        action="Cool the card, or let it rest between trials; later cases suffer more than earlier ones.",
    )


def _named(stages: pl.DataFrame, name: str) -> str:
    """The first three stages with their percentages, and how many more there are."""
    first = ", ".join(f"{row['stage']} {row[name]:.1f} %" for row in stages.head(_THREE).iter_rows(named=True))
    return first + (f" and {stages.height - _THREE} more" if stages.height > _THREE else "")
