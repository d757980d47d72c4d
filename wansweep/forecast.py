"""What is foretold of a run: for which card, kept in the run folder as plan.json, and which cases are not tried because they will not fit."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wansweep.case import Case
from wansweep.errors import ConfigError
from wansweep.hardware import GPUS, find
from wansweep.plan.geometry import as_run
from wansweep.plan.packing import Predicted, guessed_s
from wansweep.plan.planner import OVERDUE, PREDICTED, PlannedCase, Verdict, overdue, plan, trial_s
from wansweep.plan.rates import Calibration
from wansweep.plan.stack import STACKS
from wansweep.record import Outcome, Record, unrun
from wansweep.sweep import Hardware, Procedure, Sweep

if TYPE_CHECKING:
    from wansweep.store import RunFolder

# How the reason of a case begins that was not tried for its prediction.
_SKIPPED = "predicted: "


def card_of(hardware: Hardware, device_names: Sequence[str | None]) -> Hardware:
    """The hardware by name: as it was asked for, or where that is ``auto`` the one kind of known GPU that is here."""
    found = {gpu.name if name and (gpu := find(name)) else None for name in device_names}
    if hardware.name != "auto" or len(found) != 1 or None in found:
        return hardware
    return replace(hardware, name=str(found.pop()), gpus=len(device_names))


def here(hardware: Hardware) -> tuple[Hardware, str]:
    """The hardware to plan for, and what to say where nothing can be predicted for it; NVML is asked only for ``auto``."""
    if hardware.name == "auto":
        from wansweep.telemetry.environment import environment

        names = [gpu.name for gpu in environment().gpus]
        hardware = card_of(hardware, names)
        if hardware.name == "auto" and names:
            return hardware, f"No predictions: {', '.join(sorted({str(name) for name in names}))} is not one known GPU; {_way_out()}"
    return hardware, "" if hardware.name in GPUS else f"No predictions for hardware={hardware.name}: {_way_out()}"


def _way_out() -> str:
    return f"name a card, as hardware=rtx4090; known: {', '.join(GPUS)}."


def calibrated(run_dir: Path | None, hardware: Hardware) -> tuple[Calibration, list[str]]:
    """What a run folder teaches of a card, and lines that show the gain; without a folder nothing.

    Raises:
        ConfigError: The card is unknown, or no trial of the folder ran on it.
        StoreError: It is no run folder.
    """
    if run_dir is None:
        return Calibration(), []
    from wansweep.store import open_folder
    from wansweep.tables.calibration import calibrate

    if hardware.name not in GPUS:
        raise ConfigError([f"calibrate={run_dir}: hardware={hardware.name} is no card to calibrate; {_way_out()}"])
    records, _ = open_folder(run_dir).read()
    learnt = calibrate(records, GPUS[hardware.name])
    if learnt is None:
        device = GPUS[hardware.name].device_name
        raise ConfigError([f"calibrate={run_dir}: no trial that ended ok on {device} with real networks; name the hardware that it ran on"])
    return learnt.calibration, learnt.lines()


def foretell(sweep: Sweep, folder: RunFolder) -> list[PlannedCase]:
    """The sweep's plan on the card that it runs on, kept in its folder."""
    from wansweep.files import write_atomic

    hardware = card_of(replace(sweep.hardware, name="auto"), [gpu.name for gpu in folder.environment().gpus])
    rows = overdue(plan(sweep.cases, hardware if hardware.name in GPUS else sweep.hardware, stack=STACKS["diffusers"]), sweep.procedure)
    write_atomic(folder.plan, json.dumps([row.as_row() for row in rows], ensure_ascii=False).encode())
    return rows


def warnings(rows: Sequence[PlannedCase]) -> list[str]:
    """What to say before a run whose trials are predicted to be ended before they are done."""
    late = [row for row in rows if OVERDUE in row.note]
    return [f"wansweep: {late[0].case.label}: {late[0].note}; {len(late)} of {len(rows)} cases are so long"] if late else []


def lengths(rows: Sequence[PlannedCase], procedure: Procedure) -> dict[str, Predicted]:
    """What the packer needs, by case id; nothing where no case has a predicted length.

    A case that has none, as a miniature or one whose cache decides by the content, has a guess by its FLOP, brought to the scale of the others.
    """
    seconds = {row.case.id: trial_s(row, procedure) for row in rows}
    scales = [known_s / guessed_s(row.case) for row in rows if (known_s := seconds[row.case.id]) is not None]
    if not scales:
        return {}
    scale = statistics.median(scales)

    def needed(row: PlannedCase) -> Predicted:
        known_s = seconds[row.case.id]
        total_s = scale * guessed_s(as_run(row.case)) if known_s is None else known_s
        return Predicted(total_s=total_s, peak_bytes=row.predicted_peak_bytes or 0)

    return {row.case.id: needed(row) for row in rows}


def unfit(rows: Sequence[PlannedCase], todo: Sequence[tuple[Case, int]]) -> list[Record]:
    """Records of the trials that are not tried, each with the prediction as its witness."""
    reasons = {row.case.id: row.reason for row in rows if row.verdict is Verdict.SKIP and row.reason.startswith(PREDICTED)}
    return [
        unrun(case, trial, Outcome.SKIPPED, f"{_SKIPPED}{reasons[case.id]}; procedure.try_anyway=true tries it")
        for case, trial in todo
        if case.id in reasons
    ]


def is_prediction(record: Record) -> bool:
    """Whether a trial was left out for its prediction alone."""
    return record.outcome is Outcome.SKIPPED and record.reason.startswith(_SKIPPED)
