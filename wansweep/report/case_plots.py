"""The pictures of one case, which the reader chooses: its stages on a time line, its memory over time, its steps.

The charts are made once and hold no data; `case_data` is what the page puts into them when a case is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby

import altair as alt
import polars as pl

from wansweep.record import Expert, Record, Stage, StageKind
from wansweep.report.pictures import INK, MUTED, Picture, Row, drawn, on
from wansweep.units import GIB

KEYS = ("timeline", "memory", "steps")
# What a stage is to a reader; each has its colour in all pictures of a case.
GROUPS: dict[str, str] = {
    "Loading": "colour:orange",
    "Compilation": "colour:violet",
    "Text encoding": "colour:pink",
    "Preprocess": "colour:sky",
    "Denoising": "colour:blue",
    "High-noise expert": "colour:blue",
    "Low-noise expert": "colour:vermilion",
    "VAE decoding": "colour:green",
    "Save": "colour:grey",
}
# Of one rank's row; charts.js takes it times the ranks.
RANK_PX = 38
# Shorter stages are no pixel wide.
LEAST_SHARE = 5e-4
_SHADE = alt.Scale(domain=list(GROUPS), range=list(GROUPS.values()))
_LINES = {"device_used_bytes": "GPU in use", "host_pss_bytes": "host (PSS)", "host_rss_bytes": "host (RSS)"}

# Vega puts ticks between few steps all the same, and rounds their labels to a second 2.
_WHOLE = "datum.value % 1 ? '' : datum.value"


def group_of(stage: Stage) -> str:
    """What a stage is to a reader."""
    match stage.kind:
        case StageKind.MODEL_INITIALIZATION | StageKind.STEP_LOADING:
            return "Loading"
        case StageKind.STEP_INFERENCE:
            return {None: "Denoising", Expert.HIGH: "High-noise expert", Expert.LOW: "Low-noise expert"}[stage.expert]
        case StageKind.T5_ENCODING:
            return "Text encoding"
        case StageKind.VAE_DECODING:
            return "VAE decoding"
        case _:
            return str(stage.kind)


@cache
def pictures() -> tuple[Picture, ...]:
    """The three, without data."""
    return (
        Picture(
            key="timeline",
            title="Where its time went",
            reading="One row a rank. What follows Total_Execution is saving, which is not part of the total.",
            chart=_timeline(),
        ),
        Picture(
            key="memory",
            title="Memory over time",
            reading="What the sampler saw, over the stages of rank 0; of each stretch of time the highest sample.",
            chart=_memory(),
        ),
        Picture(
            key="steps",
            title="Step by step",
            reading="The slowest rank of each step, median over the trials; the bar spans the trials. The first step holds first-run effects.",
            chart=_steps(),
        ),
    )


def case_data(record: Record, stages: pl.DataFrame, curves: pl.DataFrame | None) -> dict[str, dict[str, list[Row]]]:
    """Each picture's data for one case; an empty list where there is nothing to draw.

    Args:
        record: The trial that is shown.
        stages: Rows of stages.parquet of the case's trials that count.
        curves: As `tables.curves` makes them of the record's samples; null without samples.
    """
    leaves = [stage for stage in record.stages if stage.duration_s is not None and stage.kind is not StageKind.TOTAL_EXECUTION]
    end_s = max((_end_s(stage) for stage in leaves), default=0.0)
    begin_s = min((stage.start_s for stage in leaves), default=0.0)
    shown = [stage for stage in leaves if (stage.duration_s or 0.0) >= LEAST_SHARE * (end_s - begin_s)]
    return {
        "timeline": {"stages": [_bar(stage, begin_s) for stage in shown]},
        "memory": {"bands": _bands([stage for stage in shown if stage.rank == 0], begin_s), "lines": _lines(curves, begin_s)},
        "steps": _step_rows(stages),
    }


def why_empty(record: Record | None, key: str) -> str:
    """Why a picture of a case has nothing to draw."""
    if record is None:
        return "The case has not run yet."
    ended = f"The trial ended as {record.outcome} before its first {'step' if record.stages else 'stage'}"
    if not record.stages:
        return f"{ended}: {record.reason}"
    if key == "memory":
        return "No samples of memory are kept for this trial" + (
            ": its record does not say how they lie over the stages." if record.origin_s is None else "."
        )
    return f"{ended} was over: {record.reason}" if key == "steps" else "No stage ended."


def _timeline() -> dict[str, object]:
    hover = [
        alt.Tooltip("name:N", title="Stage"),
        alt.Tooltip("rank:N", title="Rank"),
        alt.Tooltip("from:Q", title="From (s)", format=".2f"),
        alt.Tooltip("seconds:Q", title="Seconds", format=".3f"),
    ]
    return drawn(
        on("stages")
        .mark_bar(height={"band": 0.8}, stroke=None)
        .encode(
            x=alt.X("from:Q", title="Seconds since loading began", scale=alt.Scale(nice=False)),
            x2="to:Q",
            y=alt.Y("rank:N", title="Rank", axis=alt.Axis(domain=False, ticks=False)),
            color=alt.Color("group:N", title=None, scale=_SHADE),
            tooltip=hover,
            description="name:N",
        ),
        height=RANK_PX,
    )


def _memory() -> dict[str, object]:
    x = alt.X("from:Q", title="Seconds since loading began", scale=alt.Scale(nice=False))
    bands = (
        on("bands")
        .mark_rect(opacity=0.22)
        .encode(x=x, x2="to:Q", color=alt.Color("group:N", title=None, scale=_SHADE), tooltip=[alt.Tooltip("group:N", title="Stage")])
    )
    hover = [
        alt.Tooltip("what:N", title="Memory"),
        alt.Tooltip("rank:N", title="Rank"),
        alt.Tooltip("from:Q", title="At (s)", format=".2f"),
        alt.Tooltip("gib:Q", title="GiB", format=".2f"),
    ]
    y = alt.Y("gib:Q", title="Memory (GiB)", scale=alt.Scale(zero=True))
    dash = alt.StrokeDash("what:N", title=None)
    line = on("lines").mark_line(strokeWidth=1.8, color=INK, interpolate="monotone").encode(x=x, y=y, strokeDash=dash, detail="rank:N")
    dots = on("lines").mark_point(size=60, opacity=0).encode(x=x, y=y, tooltip=hover)
    return drawn(bands, line, dots, height=300)


def _steps() -> dict[str, object]:
    x = alt.X("step:Q", title="Step", axis=alt.Axis(labelExpr=_WHOLE, tickMinStep=1), scale=alt.Scale(nice=False, padding=12))
    y = alt.Y("seconds:Q", title="Step time (s)", scale=alt.Scale(zero=True))
    shade = alt.Color("group:N", title=None, scale=_SHADE)
    hover = [alt.Tooltip("step:Q", title="Step"), alt.Tooltip("told:N", title="Seconds"), alt.Tooltip("group:N", title="Expert")]
    return drawn(
        on("switch").mark_rule(strokeDash=[4, 4], color=MUTED).encode(x="step:Q"),
        on("switch").mark_text(color=MUTED, fontSize=11).encode(x="step:Q", y=alt.value(-8), text="told:N"),
        on("steps").mark_rule(strokeWidth=3, opacity=0.35).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=shade),
        on("steps").mark_line(strokeWidth=1.5, opacity=0.6).encode(x=x, y=y, color=shade),
        on("steps").mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=shade, tooltip=hover, description="step:Q"),
        height=280,
    )


def _bar(stage: Stage, begin_s: float) -> Row:
    return {
        "name": stage.name,
        "group": group_of(stage),
        "rank": stage.rank,
        "from": round(stage.start_s - begin_s, 4),
        "to": round(_end_s(stage) - begin_s, 4),
        "seconds": round(stage.duration_s or 0.0, 4),
    }


def _bands(stages: Sequence[Stage], begin_s: float) -> list[Row]:
    """Stages as shaded stretches; neighbours of a kind are one."""
    ordered = sorted(stages, key=lambda stage: stage.start_s)
    bands = []
    for group, together in groupby(ordered, key=group_of):
        run = list(together)
        bands.append({"group": group, "from": round(run[0].start_s - begin_s, 4), "to": round(_end_s(run[-1]) - begin_s, 4)})
    return bands


def _lines(curves: pl.DataFrame | None, begin_s: float) -> list[Row]:
    if curves is None:
        return []
    pss = (curves["metric"] == "host_pss_bytes").any()
    names = {name: told for name, told in _LINES.items() if name != "host_rss_bytes" or not pss}
    rows = curves.filter(pl.col("metric").is_in(list(names)) & pl.col("rank").is_not_null()).iter_rows(named=True)
    return [
        {
            "what": names[row["metric"]],
            "rank": row["rank"],
            "from": round(row["t_s"] - begin_s, 3),
            "gib": round(row["value"] / GIB, 3),
        }
        for row in rows
    ]


def _step_rows(stages: pl.DataFrame) -> dict[str, list[Row]]:
    """Seconds of each step over the trials, and where the experts switch."""
    steps = stages.filter(pl.col("kind") == str(StageKind.STEP_INFERENCE))
    slowest = steps.group_by("trial", "step", "expert").agg(pl.col("duration_s").max())
    seconds = pl.col("duration_s")
    folded = slowest.group_by("step", "expert").agg(seconds=seconds.median(), low=seconds.min(), high=seconds.max(), n=pl.len()).sort("step")
    rows = [_step_row(row) for row in folded.iter_rows(named=True)]
    low = next((row["step"] for row in rows if row["group"] == "Low-noise expert"), None)
    switched = low is not None and any(row["group"] == "High-noise expert" for row in rows)
    return {"steps": rows, "switch": [{"step": low - 0.5, "told": "experts switch"}] if switched and low is not None else []}


def _step_row(row: Mapping[str, float | str | None]) -> Row:
    group = {None: "Denoising", "high": "High-noise expert", "low": "Low-noise expert"}[row["expert"]]  # type: ignore[index]
    told = f"{row['seconds']:.3f} (n={row['n']}, {row['low']:.3f} to {row['high']:.3f})"
    return {"step": row["step"], "seconds": row["seconds"], "low": row["low"], "high": row["high"], "group": group, "told": told}


def _end_s(stage: Stage) -> float:
    return stage.start_s + (stage.duration_s or 0.0) + stage.paused_s
