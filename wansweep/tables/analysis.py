"""Where a case's time went, and what to do about it: rules over its stages, each with its evidence, an action, or what it lacked.

"No significant bottleneck" is said only when every rule had its data.
"""

from __future__ import annotations

import polars as pl

from wansweep.record import Record
from wansweep.tables import rules_device, rules_memory, rules_time
from wansweep.tables.finding import Finding, NoData, Rule

RULES: tuple[Rule, ...] = (
    rules_time.loading,
    rules_time.swap,
    rules_time.swap_against_link,
    rules_time.vae_share,
    rules_time.unattributed,
    rules_device.low_sm,
    rules_time.cold_load,
    rules_device.memory_bound,
    rules_device.host_bound,
    rules_device.t5_on_cpu,
    rules_device.power_capped,
    rules_device.thermally_capped,
    rules_memory.near_limit,
    rules_memory.vae_sets_peak,
    rules_memory.fragmentation,
    rules_memory.fp32_weights,
)


def analyse(stages: pl.DataFrame, record: Record | None = None) -> tuple[list[Finding], list[NoData]]:
    """Findings over one case, and rules without data.

    Args:
        stages: A row a stage: kind, stage, duration_s and the measured columns of `frames.STAGES_SCHEMA`.
        record: A trial of the case, for what stages do not say: its GPU, its weights, its number formats. Rules that need it lack data without.
    """
    answers = [rule(stages, record) for rule in RULES]
    return [a for a in answers if isinstance(a, Finding)], [a for a in answers if isinstance(a, NoData)]
