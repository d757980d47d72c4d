"""The plan: what each case would reserve and cost, and whether it can run. No GPU; torch only where a network's memory is traced anew."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from wansweep import presets
from wansweep.case import Case, declared_fields
from wansweep.hardware import GPUS, Gpu
from wansweep.levers import Weights
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.dominance import kind, needs_no_less
from wansweep.plan.flops import case_flop
from wansweep.plan.memory import ERROR, memory
from wansweep.plan.rates import Calibration
from wansweep.plan.roofline import times
from wansweep.plan.rules import forbidden
from wansweep.plan.stack import DIFFUSERS, Stack
from wansweep.plan.traces import Traces, cache_file
from wansweep.sweep import Hardware, Procedure
from wansweep.units import GIB

Value = str | int | float | None
# How reasons begin that a prediction gives; other reasons to skip are the scheduler's to find.
PREDICTED = ("will not fit", "dominated")
# How the note of a case begins that takes longer than a trial may.
OVERDUE = "over procedure.timeout_s"
_CONTENT = "the cache decides by the content what it skips: no time is predicted"


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
        note: What else a reader should know of the prediction.
        predicted_flop: FLOP of one video; null for miniatures, whose speed no formula is about. So are the others, and without a known card.
        predicted_peak_bytes: Most that torch allocates on a GPU; beside ``peak_allocated_bytes``.
        predicted_peak_stage: In which stage.
        predicted_device_bytes: With the context and NCCL's buffers; beside ``peak_device_bytes``.
        predicted_host_bytes: Of all ranks; beside ``peak_host_bytes``.
        predicted_total_s: Total_Execution: load, compilation, T5, preprocess, steps, swaps and decode.
        predicted_step_s: Inference of a step, the mean.
        predicted_load_s: Model_Initialization.
        predicted_text_encode_s: T5_Encoding.
        predicted_preprocess_s: Preprocess.
        predicted_swap_s: Loading between steps.
        predicted_vae_decode_s: VAE_Decoding.
        predicted_compile_s: Compilation.
    """

    case: Case
    verdict: Verdict
    reason: str
    note: str = ""
    predicted_flop: int | None
    predicted_peak_bytes: int | None = None
    predicted_peak_stage: str | None = None
    predicted_device_bytes: int | None = None
    predicted_host_bytes: int | None = None
    predicted_total_s: float | None = None
    predicted_step_s: float | None = None
    predicted_load_s: float | None = None
    predicted_text_encode_s: float | None = None
    predicted_preprocess_s: float | None = None
    predicted_swap_s: float | None = None
    predicted_vae_decode_s: float | None = None
    predicted_compile_s: float | None = None

    def as_row(self) -> dict[str, Value]:
        """The plan's JSON object for the case: what contract.md names, and the case's own fields."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name.startswith("predicted_")}
        fields = {field.name: getattr(self.case, field.name) for field in declared_fields()}
        head = {"case_id": self.case.id, "label": self.case.label, "verdict": str(self.verdict), "reason": self.reason, "note": self.note}
        return {**head, **known, **fields, "preset": presets.told(self.case)}


def plan(
    cases: Sequence[Case],
    hardware: Hardware,
    *,
    traces: Traces | None = None,
    stack: Stack = DIFFUSERS,
    calibration: Calibration | None = None,
) -> list[PlannedCase]:
    """The cases in order, each with its verdict on that hardware.

    Args:
        cases: As declared.
        hardware: A card of the GPU table; without one nothing but FLOP is predicted.
        traces: Of networks; null for those of the user's cache folder, where new ones are kept.
        stack: Whose code is predicted.
        calibration: What a run folder taught of this card.
    """
    known = Traces(cache_file()) if traces is None else traces
    gpu = GPUS.get(hardware.name)
    drawn: dict[Case, PlannedCase] = {}

    def planned(case: Case) -> PlannedCase:
        # Cases that differ in what is drawn alone, as a sweep over seeds, are predicted once.
        alike = replace(case, seed=0, prompt="", negative_prompt="", name="")
        if alike not in drawn:
            drawn[alike] = _planned(alike, hardware, gpu, known, stack, calibration or Calibration())
        return replace(drawn[alike], case=case)

    rows = [planned(case) for case in cases]
    known.save()
    return dominated(rows)


def _planned(case: Case, hardware: Hardware, gpu: Gpu | None, traces: Traces, stack: Stack, calibration: Calibration) -> PlannedCase:
    # `auto` is what this machine has, and its GPUs are Ray's to count.
    short = hardware.name != "auto" and case.gpus > hardware.gpus
    reason = f"needs {case.gpus} GPUs, hardware.gpus={hardware.gpus}" if short else ""
    if not reason and (rule := forbidden(case)):
        reason = f"invalid: {rule}"
    tiny = case.weights == Weights.TINY
    row = PlannedCase(
        case=case,
        verdict=Verdict.SKIP if reason else Verdict.RUN,
        reason=reason,
        predicted_flop=None if tiny else case.batch * case_flop(case).total_flop,
    )
    return row if tiny or gpu is None else _predicted(row, gpu, traces, stack, calibration)


def _predicted(row: PlannedCase, gpu: Gpu, traces: Traces, stack: Stack, calibration: Calibration) -> PlannedCase:
    case, networks = row.case, ARCHITECTURES[row.case.model]
    space = memory(case, networks, traces, stack)
    seconds = times(case, networks, gpu, traces, stack=stack, calibration=calibration)
    row = replace(
        row,
        note=_CONTENT if seconds.total_s is None else "",
        predicted_peak_bytes=space.peak_bytes,
        predicted_peak_stage=str(space.peak_stage),
        predicted_device_bytes=space.peak_bytes + space.beside_bytes,
        predicted_host_bytes=space.host_bytes,
        predicted_total_s=seconds.total_s,
        predicted_step_s=seconds.step_s,
        predicted_load_s=seconds.load_s,
        predicted_text_encode_s=seconds.text_encode_s,
        predicted_preprocess_s=seconds.preprocess_s,
        predicted_swap_s=seconds.swap_s,
        predicted_vae_decode_s=seconds.vae_decode_s,
        predicted_compile_s=seconds.compile_s,
    )
    usable = gpu.usable_bytes or gpu.vram_bytes
    excess = space.excess_bytes(usable)
    if row.reason or excess <= 0:
        return row
    if excess <= ERROR * space.peak_bytes:
        return replace(row, note="; ".join(filter(None, (row.note, f"tight: {excess / GIB:.1f} GiB over, within the prediction's error"))))
    told = f"will not fit by {excess / GIB:.1f} GiB: {space.peak_stage} takes {(usable + excess) / GIB:.1f} of {usable / GIB:.1f} GiB"
    return replace(row, verdict=Verdict.SKIP, reason=told)


def trial_s(row: PlannedCase, procedure: Procedure) -> float | None:
    """Seconds of a trial from its rest to its decoded video, warm-ups and all; null where no time is predicted. Processes start before it."""
    total_s = row.predicted_total_s
    if total_s is None:
        return None
    once_s = (row.predicted_load_s or 0.0) + (row.predicted_compile_s or 0.0)
    return procedure.cooldown_s + total_s + procedure.warmups * (total_s - once_s)


def overdue(rows: Sequence[PlannedCase], procedure: Procedure) -> list[PlannedCase]:
    """The rows, of which one that runs for longer than the procedure lets it says so."""

    def noted(row: PlannedCase) -> PlannedCase:
        needed_s = trial_s(row, procedure)
        if row.verdict is Verdict.SKIP or needed_s is None or needed_s <= procedure.timeout_s:
            return row
        return replace(row, note="; ".join(filter(None, (row.note, f"{OVERDUE}={procedure.timeout_s:g}: {needed_s:.0f} s, will time out"))))

    return [noted(row) for row in rows]


def dominated(rows: Sequence[PlannedCase]) -> list[PlannedCase]:
    """The rows, of which one that needs no less than another that will not fit is skipped as well."""
    misfits: defaultdict[tuple[object, ...], dict[tuple[object, ...], Case]] = defaultdict(dict)
    for row in rows:
        if row.reason.startswith("will not fit"):
            case = row.case
            misfits[kind(case)].setdefault((case.frames, case.width, case.height, case.batch, case.gpus, case.offload), case)

    def judged(row: PlannedCase) -> PlannedCase:
        if row.verdict is Verdict.SKIP:
            return row
        witness = next((case for case in misfits[kind(row.case)].values() if needs_no_less(row.case, case)), None)
        if witness is None:
            return row
        return replace(row, verdict=Verdict.SKIP, reason=f"dominated: needs no less than {witness.label}, which will not fit")

    return [judged(row) for row in rows] if misfits else list(rows)
