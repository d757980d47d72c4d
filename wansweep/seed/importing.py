"""A SeedReport to what a run folder holds: sweep, environment, and a record a case.

What the report states is kept. What follows from it by the seed's own arithmetic is not kept twice; where the report says something else,
its own value is kept beside (`imported.Stated`), and named in the record's notes when rounding does not explain it. What it does not say is
null in every table; in a Case, whose fields cannot be null, stands the family's official default, and the field is listed as assumed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

import wansweep
from wansweep.case import Case, Model, Task
from wansweep.imported import Imported, Stated
from wansweep.levers import Offload
from wansweep.plan.geometry import GRIDS
from wansweep.record import Figure, Outcome, Record, Stage, StageKind
from wansweep.seed import arithmetic
from wansweep.seed.document import Section, SeedReport, SeedStage, SummaryRow
from wansweep.shipped import official
from wansweep.sweep import Cluster, Hardware, Isolation, ModelSource, Procedure, Sweep
from wansweep.telemetry.environment import Environment
from wansweep.telemetry.samples import Missing
from wansweep.units import GIB

NOT_STATED = "not stated"
_CASE = TypeAdapter(Case)
_MODELS = {"TI2V_Preprocess": Model.TI2V_5B, "T2V_Preprocess": Model.T2V_A14B, "I2V_Preprocess": Model.I2V_A14B}
_TASKS = {"T2V_Preprocess": Task.T2V, "I2V_Preprocess": Task.I2V}
_BOTTLENECK = re.compile(r"- Inference stage '(\w+)' has low SM activity \((\d{1,12}\.\d\d)%\), check kernel efficiency\.")
# Half of the last digit that the report prints.
_HALF_S = _HALF_GIB = 0.005
_HALF_PCT = 0.05
T = TypeVar("T")


def records(report: SeedReport, *, file: str) -> tuple[Record, ...]:
    """One record a case, in the order in which the report first names them."""
    rows = {row.name: row for row in report.summary}
    sections = {section.name: section for section in report.sections}
    return tuple(_record(name, rows.get(name), sections.get(name), file=file) for name in dict.fromkeys([*rows, *sections]))


def sweep(cases: Iterable[Case], *, file: str) -> Sweep:
    """A sweep of the imported cases. How they were measured is not stated; n is 1."""
    return Sweep(
        name=re.sub(r"[^A-Za-z0-9._-]+", "_", Path(file).stem).lstrip("._-") or "imported",
        cases=tuple(cases),
        excluded=(),
        procedure=Procedure(repeats=1, timeout_s=900.0, isolation=Isolation.PROCESS, keep_video=False),
        cluster=Cluster(address="local", gpus=None, exclusive=False),
        hardware=Hardware(name="auto", gpus=1),
        models={model: ModelSource(repo="", revision=None, fps=1, boundary=None) for model in Model},
        command=shlex.join(["wansweep", "import", file]),
    )


def environment(*, file: str) -> Environment:
    """The report says nothing of where it ran."""
    return Environment(
        gpus=(),
        nvml=Missing.NOT_APPLICABLE,
        driver=None,
        packages={"wansweep (the importer)": wansweep.__version__},
        python=NOT_STATED,
        system=NOT_STATED,
        distribution=None,
        cpu=NOT_STATED,
        limits=None,
        git=None,
        command=(),
        imported=file,
    )


def _record(name: str, row: SummaryRow | None, section: Section | None, *, file: str) -> Record:
    case, assumed = _case(name, row, section)
    notes: list[str] = []
    stages = tuple(_stages(section, notes)) if section else ()
    stated = _stated_section(section, stages, notes) if section else None
    overall = section.overall if section else row.overall if row else None
    assert overall, name
    return Record(
        case=case,
        case_id=case.id,
        label=name,
        trial=0,
        outcome=Outcome.OK,
        reason="",
        resolved=None,
        stages=stages,
        started_utc="",
        startup_s=None,
        wall_s=overall.duration_s,
        warm=False,
        node=NOT_STATED,
        imported=Imported(
            file=file,
            assumed=assumed,
            summary=_stated_row(row, section, notes) if row else None,
            section=stated,
            notes=tuple(notes),
        ),
    )


def _case(name: str, row: SummaryRow | None, section: Section | None) -> tuple[Case, tuple[str, ...]]:
    """The case, and the fields of it that the report does not state."""
    preprocess = next((stage.name for stage in section.stages if stage.name in _MODELS), None) if section else None
    model = _MODELS[preprocess] if preprocess else _model_of(row)
    stated: dict[str, object] = {}
    if preprocess and section:
        stated |= {"model": model, "steps": sum(stage.is_inference for stage in section.stages)}
    if preprocess in _TASKS:
        stated["task"] = _TASKS[preprocess]
    if row:
        stated |= {"width": row.width, "height": row.height, "offload": Offload.MODEL if row.offload else Offload.NONE}
    unstated = {"model": model, **official(model), "weights": NOT_STATED, "prompt": NOT_STATED, "negative_prompt": NOT_STATED}
    assumed = [
        field for field in (*unstated, "offload", "dtype", "gpus", "attention", "quant", "cache", "parallel", "preset") if field not in stated
    ]
    case = _CASE.validate_python({"guidance_2": None, **unstated, **stated, "name": name, "label": name})
    return case, tuple(assumed)


def _model_of(row: SummaryRow | None) -> Model:
    """Of a case without stages: by its size, as 704 lines are the 5B's alone."""
    side = GRIDS[Model.TI2V_5B].side
    return Model.TI2V_5B if row and row.height % side == 0 and row.width % side == 0 and 704 in (row.width, row.height) else Model.T2V_A14B


def _stages(section: Section, notes: list[str]) -> Iterator[Stage]:
    at_s = 0.0
    exact = _exact_sm(section)
    for i, row in enumerate(section.stages):
        total = row.name == StageKind.TOTAL_EXECUTION
        figures = _figures(replace(row, sm_pct=exact.get(row.name, row.sm_pct)))
        if f"{row.duration_s * row.sm_pct:.0f}" != f"{row.load:.0f}":
            figures["compute_load"] = Figure(value=row.load)
            if not _explained(row):
                notes.append(f"{row.name}: Comp Load {row.load:.0f} is not {row.duration_s:.2f} s x {row.sm_pct:.1f} %")
        number = re.match(r"Step_(\d+)_", row.name)
        yield Stage(
            kind=next(kind for kind in StageKind if row.name.endswith(kind)),
            name=row.name,
            rank=0,
            # One after the other, as the report lists them; the microseconds keep those of 0.00 s in order.
            start_s=0.0 if total else at_s + 1e-6 * i,
            duration_s=row.duration_s,
            step=int(number[1]) if number else None,
            figures=figures,
        )
        at_s += 0.0 if total else row.duration_s


def _figures(row: SeedStage) -> dict[str, Figure]:
    """What a row says. It prints 0 for what nobody sampled too: no process has 0.00 GiB of host memory, and nothing is sampled in 0.00 s."""
    unsampled, no_time = Figure(value=None, why=Missing.NO_SAMPLE), Figure(value=None, why=Missing.TOO_SHORT)
    return {
        "peak_allocated_bytes": Figure(value=row.gpu_gib * GIB),
        "host_bytes": Figure(value=row.host_gib * GIB) if row.host_gib else unsampled,
        "cpu_pct": Figure(value=row.cpu_pct) if row.cpu_pct or row.host_gib else unsampled,
        "sm_active_pct": Figure(value=row.sm_pct) if row.sm_pct or row.duration_s else no_time,
    }


def _exact_sm(section: Section) -> dict[str, float]:
    """SM activity to two decimals, of the steps that the analysis names: a low number that prints as both places have it (89.996 as 90.00)."""
    exact: dict[str, float] = {}
    rows = {stage.name: stage for stage in section.stages}
    for line in section.analysis:
        found = _BOTTLENECK.fullmatch(line)
        if found and found[1] in rows:
            near = (value for nudge in (0.0, 0.004, -0.004) if (value := float(found[2]) + nudge) < arithmetic.LOW_SM_PCT)
            fits = [value for value in near if f"{value:.2f}" == found[2] and f"{value:.1f}" == f"{rows[found[1]].sm_pct:.1f}"]
            if fits:
                exact[found[1]] = fits[0]
    return exact


def _explained(row: SeedStage) -> bool:
    """Whether seconds and a percentage that print as the row's give its load."""
    low = max(0.0, row.duration_s - _HALF_S) * max(0.0, row.sm_pct - _HALF_PCT) - 0.5
    return low <= row.load <= (row.duration_s + _HALF_S) * (row.sm_pct + _HALF_PCT) + 0.5


def _stated_section(section: Section, stages: tuple[Stage, ...], notes: list[str]) -> Stated:
    """What the section says and its stages do not give."""
    exact = [replace(row, sm_pct=stage.figures["sm_active_pct"].value or 0.0) for row, stage in zip(section.stages, stages, strict=True)]
    own = arithmetic.section(section.name, exact, duration_s=section.overall.duration_s)
    steps = sum(row.is_inference for row in section.stages)
    told = [
        ("Total Compute Load", section.overall.load, own.overall.load, 0, (len(stages) + 1) / 2),
        ("Total Inference Load", section.inference_load, own.inference_load, 0, (steps + 1) / 2),
        ("Avg Time per Step", section.overall.step_s, own.overall.step_s, 2, 2 * _HALF_S),
        ("Peak GPU Memory", section.overall.peak_gib, own.overall.peak_gib, 2, 0.0),
        ("Avg SM Activity", section.overall.sm_pct, own.overall.sm_pct, 1, 2 * _HALF_PCT),
        ("Avg CPU Utilization", section.cpu_pct, own.cpu_pct, 1, 2 * _HALF_PCT),
    ]
    load, inference_load, step_s, peak_gib, sm_pct, cpu_pct = (_differing(*one, "the stages give", notes) for one in told)
    analysis = _kept(section.analysis, own.analysis, "Performance Analysis", notes)
    overview = _kept(section.overview, arithmetic.overview(section.overall.peak_gib), "Resource Usage Overview", notes)
    return Stated(
        line=section.line,
        duration_s=section.overall.duration_s,
        step_s=step_s,
        peak_bytes=None if peak_gib is None else peak_gib * GIB,
        sm_active_pct=sm_pct,
        cpu_pct=cpu_pct,
        load=None if load is None else int(load),
        inference_load=None if inference_load is None else int(inference_load),
        analysis=analysis,
        overview=overview,
        breaks_after=section.breaks_after,
    )


def _stated_row(row: SummaryRow, section: Section | None, notes: list[str]) -> Stated:
    """What the summary says and the case's section, if it has one, does not."""
    there, own = row.overall, section.overall if section else None

    def kept(what: str, name: str, digits: int) -> float | None:
        value: float = getattr(there, name)
        return value if own is None else _differing(what, value, getattr(own, name), digits, 0.0, "the section says", notes)

    peak_gib, load = kept("Mem(GB)", "peak_gib", 2), kept("Load", "load", 0)
    return Stated(
        line=row.line,
        duration_s=kept("Time(s)", "duration_s", 2),
        step_s=kept("s/step", "step_s", 2),
        peak_bytes=None if peak_gib is None else peak_gib * GIB,
        sm_active_pct=kept("SM(%)", "sm_pct", 1),
        load=None if load is None else int(load),
    )


def _differing(what: str, there: float, own: float, digits: int, slack: float, source: str, notes: list[str]) -> float | None:
    """The report's value where it is not what follows; with a note where that is more than rounding explains."""
    if f"{there:.{digits}f}" == f"{own:.{digits}f}":
        return None
    if abs(there - own) > slack + 1e-9:
        notes.append(f"{what}: the report says {there:.{digits}f}, {source} {own:.{digits}f}")
    return there


def _kept(there: T, own: T, what: str, notes: list[str]) -> T | None:
    if there == own:
        return None
    notes.append(f"{what}: not what the report's own rules say of its stages")
    return there
