"""The plan as a terminal table. Apart from the reports, so that `plan` imports no Polars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Column, Table
from rich.text import Text

from wansweep import twins
from wansweep.plan.outlook import Outlook
from wansweep.plan.planner import PlannedCase, Verdict
from wansweep.report.text import as_text
from wansweep.sweep import Sweep
from wansweep.units import BYTES, PFLOP, SECONDS, Unit, show

_FIGURES = ("Peak GiB", "in", "Host GiB", "Load s", "T5 s", "Step s", "VAE s", "Total s", "PFLOP")
_STAGES = {"Inference": "steps", "VAE_Decoding": "VAE", "T5_Encoding": "T5", "Preprocess": "encode", "Model_Initialization": "load"}
# A terminal does not hold more, and drawing them takes longer than planning them.
SHOWN = 400


def render(
    sweep: Sweep,
    rows: Sequence[PlannedCase],
    whole: Outlook | None = None,
    lines: Sequence[str] = (),
    *,
    left: Mapping[str, int] | None = None,
) -> str:
    """What would run, what each case takes, and what was left out and why.

    Args:
        sweep: What was asked.
        rows: Its cases, planned.
        whole: Of all of them; null where no time is predicted.
        lines: What else is to be said below.
        left: Trials that a run folder still lacks, by id of the cases that are planned; null where none has begun.
    """
    # Labels and reasons are to be pasted and read: folded where they are long, never cut.
    named, judged = (Column(name, overflow="fold") for name in ("Case", "Verdict"))
    table = Table(named, "Res", "Steps", "Offload", "Reserves", *_FIGURES, judged, title=f"{sweep.name}: {len(rows)} cases")
    for row in rows[:SHOWN]:
        case = row.case
        table.add_row(
            Text(case.label),
            f"{case.width}x{case.height}x{case.frames}",
            str(case.steps),
            case.offload,
            f"{case.gpus} GPU{'s on one node' if case.gpus > 1 else ''}",
            *_figures(row),
            Text(f"{row.verdict}{': ' + row.reason if row.reason else ''}{' (' + row.note + ')' if row.note else ''}"),
        )
    repeats = twins.repeats(sweep)
    counts = repeats if left is None else left
    trials = sum(counts[row.case.id] for row in rows if row.verdict is Verdict.RUN)
    twice = sum(count > sweep.procedure.repeats for count in repeats.values())
    more = f", {twins.LEAST_REPEATS} of {twice} that drift is held against" if twice else ""
    of_all = f"({sweep.procedure.repeats} a case{more})" if left is None else f"of {sum(repeats.values())} are left"
    below = [f"{trials} trials {of_all}, each at most {sweep.procedure.timeout_s:g} s."]
    below += ["On a cluster without GPUs, ranks reserve CPUs instead."]
    if len(rows) > SHOWN:
        below.append(f"The first {SHOWN} of {len(rows)} cases are shown; format=json has all.")
    below += _whole(whole, sweep) if whole else []
    below += [f"left out: {left.case.label}: {left.reason}" for left in sweep.excluded]
    return as_text(table, *below, *lines)


def _figures(row: PlannedCase) -> list[str]:
    def told(value: float | None, unit: Unit, digits: int) -> str:
        return show(value, unit, digits=digits)

    return [
        told(row.predicted_peak_bytes, BYTES, 1),
        _STAGES[row.predicted_peak_stage] if row.predicted_peak_stage else "",
        told(row.predicted_host_bytes, BYTES, 0),
        told(row.predicted_load_s, SECONDS, 1),
        told(row.predicted_text_encode_s, SECONDS, 1),
        told(row.predicted_step_s, SECONDS, 2),
        told(row.predicted_vae_decode_s, SECONDS, 1),
        told(row.predicted_total_s, SECONDS, 0),
        told(row.predicted_flop, PFLOP, 1),
    ]


def _whole(whole: Outlook, sweep: Sweep) -> list[str]:
    """The sweep as a whole, a line an answer."""
    hardware = sweep.hardware
    unknown = f"; {whole.unknown} more have no predicted time" if whole.unknown else ""
    lines = [
        f"{whole.gpu_hours:.1f} GPU-hours in {whole.trials} trials{unknown}.",
        f"On {hardware.gpus} x {hardware.name}: {whole.wall_s / 3600:.2f} h, at least {whole.bound_s / 3600:.2f} h in any order; "
        f"{100 * whole.utilisation:.0f} % of the GPUs' time in use.",
        f"A full node's ranks hold up to {show(whole.node_host_bytes, BYTES, digits=0)} GiB of host memory.",
        f"Gives way first: {whole.first}.",
    ]
    if whole.cost is not None:
        lines.append(f"Cost at {hardware.price_per_gpu_hour:g} a GPU-hour: {whole.cost:.2f}.")
    return lines
