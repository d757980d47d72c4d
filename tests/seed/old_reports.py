"""Reports of the seed's kind, written by a template of their own: what the importer is held against."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

# Kept apart from wansweep.seed.render on purpose: two writings of one format, held against each other.
SUMMARY_HEAD = """\
| Case                   | Res        | Offload |  Time(s) | s/step | Mem(GB) | SM(%) |   Load |
|------------------------|------------|---------|----------|--------|---------|-------|--------|
"""
SECTION = """\
## Case: {name}

- **Total Duration**: {duration:.2f} s
- **Peak GPU Memory**: {peak:.2f} GB
- **Total Compute Load**: {load:.0f}

### Stage Breakdown

| Stage | Time (s) | GPU Mem (GB) | CPU (%) | Sys Mem (GB) | SM Act (%) | Comp Load |
| :--- | :--- | :--- | :--- | :--- | :--- | :--- |
{rows}
### Inference Statistics

- **Avg Time per Step**: {step:.2f} s
- **Avg SM Activity**: {sm:.1f} %
- **Avg CPU Utilization**: {cpu:.1f} %
- **Total Inference Load**: {inference_load:.0f}

### Performance Analysis

{analysis}

**Resource Usage Overview:**
- Peak GPU Memory reached {peak:.2f} GB. {vram}
---

"""


@dataclass
class OldStage:
    name: str
    seconds: float
    gpu: float
    cpu: float
    host: float
    sm: float

    @property
    def load(self) -> float:
        return self.seconds * self.sm


@dataclass
class OldCase:
    name: str
    res: str
    offload: bool
    outside_s: float
    stages: list[OldStage]
    in_summary: bool
    in_details: bool

    @property
    def figures(self) -> dict[str, float]:
        steps = [stage for stage in self.stages if "_Inference" in stage.name]
        n = max(1, len(steps))
        return {
            "duration": self.stages[-1].seconds + self.outside_s,
            "peak": max(stage.gpu for stage in self.stages),
            "load": sum(stage.load for stage in self.stages),
            "step": sum(stage.seconds for stage in steps) / n,
            "sm": sum(stage.sm for stage in steps) / n,
            "cpu": sum(stage.cpu for stage in steps) / n,
            "inference_load": sum(stage.load for stage in steps),
        }


def text_of(cases: list[OldCase]) -> str:
    """The report as its tool would have written it, from unrounded values."""
    out = "# Wan2.2 Benchmark Report\n\n" + SUMMARY_HEAD
    for case in cases:
        if case.in_summary:
            of = case.figures
            out += (
                f"| {case.name.ljust(22)} | {case.res.ljust(10)} | {str(case.offload).ljust(7)} | {of['duration']:8.2f} | {of['step']:6.2f} | "
            )
            out += f"{of['peak']:7.2f} | {of['sm']:5.1f} | {of['load']:6.0f} |\n"
    out += "\n# Detailed Breakdown\n\n"
    return out + "".join(section_of(case) for case in cases if case.in_details)


def section_of(case: OldCase) -> str:
    rows = ""
    low = ""
    for s in case.stages:
        rows += f"| {s.name} | {s.seconds:.2f} | {s.gpu:.2f} | {s.cpu:.1f} | {s.host:.2f} | {s.sm:.1f} | {s.load:.0f} |\n"
        if "_Inference" in s.name and s.sm < 90:
            low += f"\n- Inference stage '{s.name}' has low SM activity ({s.sm:.2f}%), check kernel efficiency."
    analysis = f"**Bottlenecks Detected:**{low}" if low else "No significant bottlenecks detected. GPU utilization is healthy."
    high = case.figures["peak"] > 40
    vram = "High VRAM usage, close to 48GB limit on L40S." if high else "VRAM usage is within safe margins."
    return SECTION.format(name=case.name, rows=rows, analysis=analysis, vram=vram, **case.figures)


def amounts(largest: float) -> st.SearchStrategy[float]:
    return st.one_of(st.just(0.0), st.floats(min_value=0, max_value=largest, allow_nan=False))


@st.composite
def old_cases(draw: st.DrawFn) -> OldCase:
    def stage(name: str) -> OldStage:
        return OldStage(name, draw(amounts(999)), draw(amounts(141)), draw(amounts(9999)), draw(amounts(2000)), draw(amounts(100)))

    kind = draw(st.sampled_from(["TI2V", "T2V", "I2V"]))
    names = ["Model_Initialization", f"{kind}_Preprocess", "T5_Encoding"]
    for step in range(draw(st.integers(0, 12))):
        names += [f"Step_{step}_Loading", f"Step_{step}_Inference"]
    where = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return OldCase(
        name=draw(st.text("abcXYZ019_-. ", min_size=1, max_size=30).map(str.strip).filter(bool)),
        res=f"{draw(st.integers(1, 4096))}*{draw(st.integers(1, 4096))}",
        offload=draw(st.booleans()),
        outside_s=draw(amounts(30)),
        stages=[stage(name) for name in [*names, "VAE_Decoding", "Total_Execution"]],
        in_summary=where[0],
        in_details=where[1],
    )


def old_reports() -> st.SearchStrategy[str]:
    return st.lists(old_cases(), max_size=4, unique_by=lambda case: case.name).map(text_of)
