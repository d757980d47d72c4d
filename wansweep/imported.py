"""What a record says of itself that was not measured here but read from another tool's report (``wansweep import``)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """Figures of a whole case as one place of the old report states them; null where the report's own arithmetic over the rest gives the same.

    Attributes:
        line: Of the file, from 1; keeps the order of cases.
        duration_s: "Total Duration" or "Time(s)". In a section it follows from nothing, so it is always there.
        step_s: Mean seconds of a step.
        peak_bytes: Peak GPU memory.
        sm_active_pct: Plain mean over the steps.
        cpu_pct: Plain mean over the steps; of sections only.
        load: As the seed has it, in SM%·s: Total_Execution is added to the stages it contains.
        inference_load: Of the steps, in SM%·s; of sections only.
        analysis: Lines of the performance analysis.
        overview: Lines of the resource overview.
        breaks_after: Line breaks behind the section.
    """

    line: int
    duration_s: float | None = None
    step_s: float | None = None
    peak_bytes: float | None = None
    sm_active_pct: float | None = None
    cpu_pct: float | None = None
    load: int | None = None
    inference_load: int | None = None
    analysis: tuple[str, ...] | None = None
    overview: tuple[str, ...] | None = None
    breaks_after: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Where an imported record comes from, and what its report does not say.

    Attributes:
        file: Name of the old report.
        assumed: Fields of the case that the report does not state; in the case stands the model's default, in tables nothing.
        notes: Where the report contradicts its own arithmetic by more than its rounding; a line each.
        summary: The case's row of the summary table; null when it has none.
        section: The case's breakdown; null when it has none.
    """

    file: str
    assumed: tuple[str, ...]
    notes: tuple[str, ...]
    summary: Stated | None
    section: Stated | None
