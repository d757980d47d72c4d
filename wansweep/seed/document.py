"""The seed format's nouns: what such a report says, as values. Its GB are GiB (shared arithmetic with the weights' known sizes shows it)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Overall:
    """The five figures that the summary and a section both state of a case.

    Attributes:
        duration_s: "Total Duration", "Time(s)".
        step_s: "Avg Time per Step", "s/step".
        peak_gib: "Peak GPU Memory", "Mem(GB)".
        sm_pct: "Avg SM Activity", "SM(%)".
        load: "Total Compute Load", "Load", in SM%·s with Total_Execution added to what it contains.
    """

    duration_s: float
    step_s: float
    peak_gib: float
    sm_pct: float
    load: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SummaryRow:
    """One row of the summary table. ``line`` is its place in the file, from 1; offload was True or False."""

    line: int
    name: str
    width: int
    height: int
    offload: bool
    overall: Overall


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedStage:
    """One row of a stage table, in the table's units; 0 stands for what was not sampled too."""

    name: str
    duration_s: float
    gpu_gib: float
    cpu_pct: float
    host_gib: float
    sm_pct: float
    load: float

    @property
    def is_inference(self) -> bool:
        """Whether it is a denoising step."""
        return self.name.endswith("_Inference")


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One case's breakdown.

    Attributes:
        line: Of its heading.
        name: Of the case.
        overall: What the summary has too.
        stages: Rows of its table, in order.
        cpu_pct: Mean over the steps.
        inference_load: Sum over the steps, in SM%·s.
        analysis: Lines of the performance analysis.
        overview: Lines of the resource overview.
        breaks_after: Line breaks behind its closing rule: 2, and at a file's end whatever is there.
    """

    line: int
    name: str
    overall: Overall
    stages: tuple[SeedStage, ...]
    cpu_pct: float
    inference_load: float
    analysis: tuple[str, ...]
    overview: tuple[str, ...]
    breaks_after: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedReport:
    """A whole report; the summary and the sections need not name the same cases."""

    summary: tuple[SummaryRow, ...]
    sections: tuple[Section, ...]
