"""The plan: what each case would reserve and cost, and whether it can run. No GPU, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from wansweep import presets
from wansweep.case import Case, declared_fields
from wansweep.levers import Weights
from wansweep.plan.flops import case_flop
from wansweep.plan.rules import forbidden
from wansweep.sweep import Hardware

Value = str | int | float | None


class Verdict(StrEnum):
    """What the runner would do with a case."""

    RUN = "run"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCase:
    """A case and what is known of it before it runs.

    Attributes:
        case: As declared.
        verdict: Run or skip.
        reason: Why it is skipped; empty for one that runs.
        predicted_flop: FLOP of one video; null for miniatures, whose speed no formula is about.
        predicted_peak_bytes, predicted_host_bytes, predicted_total_s, predicted_step_s: Null until there is a model of them.
    """

    case: Case
    verdict: Verdict
    reason: str
    predicted_flop: int | None
    predicted_peak_bytes: int | None = None
    predicted_host_bytes: int | None = None
    predicted_total_s: float | None = None
    predicted_step_s: float | None = None

    def as_row(self) -> dict[str, Value]:
        """The plan's JSON object for the case: what contract.md names, and the case's own fields."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name.startswith("predicted_")}
        fields = {field.name: getattr(self.case, field.name) for field in declared_fields()}
        head = {"case_id": self.case.id, "label": self.case.label, "verdict": str(self.verdict), "reason": self.reason}
        return {**head, **known, **fields, "preset": presets.told(self.case)}


def plan(cases: Sequence[Case], hardware: Hardware) -> list[PlannedCase]:
    """The cases in order, each with its verdict on that hardware."""
    return [_planned(case, hardware) for case in cases]


def _planned(case: Case, hardware: Hardware) -> PlannedCase:
    # `auto` is what this machine has, and its GPUs are Ray's to count.
    short = hardware.name != "auto" and case.gpus > hardware.gpus
    reason = f"needs {case.gpus} GPUs, hardware.gpus={hardware.gpus}" if short else forbidden(case)
    return PlannedCase(
        case=case,
        verdict=Verdict.SKIP if reason else Verdict.RUN,
        reason=reason,
        predicted_flop=None if case.weights == Weights.TINY else case_flop(case).total_flop,
    )
