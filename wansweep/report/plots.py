"""The pictures over all cases: time against memory, the offload ladder, scaling over GPUs, predicted against measured."""

from __future__ import annotations

import altair as alt
import polars as pl

from wansweep.record import Outcome
from wansweep.report import cost_plot, drift_plot, time_plot
from wansweep.report.cells import figure
from wansweep.report.choosing import MEMORY
from wansweep.report.pictures import (
    CASE,
    LINE,
    NO_OK,
    SERIES,
    Picture,
    Row,
    axis,
    axis_scale,
    colours,
    distinct,
    drawn,
    on,
    shapes,
    written_above,
)
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import ladder, memory_measured, scaling
from wansweep.units import GIB

# Bars of a ladder that are still read as one.
MOST_BARS = 30


def pictures(results: Results) -> list[Picture]:
    """In the order a reader asks; one that has nothing to show says why, and drift is left out of a run without lossy cases."""
    first = [cost_plot.picture(results), _ladder(results), *time_plot.pictures(results), *drift_plot.pictures(results)]
    return [*first, *_scaling(results), _predicted(results)]


def _ladder(results: Results) -> Picture:
    title = "What each saved GiB costs"
    memory = memory_measured(results.summary)
    rungs = ladder(results.sweep.cases, results.summary, memory) if memory else None
    if rungs is None or rungs.is_empty():
        why = (
            "No case that offloads and ended ok has a twin without offload that ended ok with its memory measured: there is nothing to compare."
        )
        return Picture(key="ladder", title=title, reading="", why=why if _any_ok(results) else NO_OK)
    saving = rungs.filter(pl.col("s_per_gib").is_not_null())
    if saving.is_empty():
        return Picture(key="ladder", title=title, reading="", why=f"None of {rungs.height} offloading cases takes less memory than its twin.")
    assert memory is not None
    rows = [_rung(row) for row in saving.head(MOST_BARS).iter_rows(named=True)]
    y = alt.Y("label:N", title=None, sort=None, axis=None)
    hover = [CASE, alt.Tooltip("twin:N", title="Against"), alt.Tooltip("paid:N", title="Pays"), alt.Tooltip("price:N", title="Price")]
    chart = drawn(
        on("rungs")
        .mark_bar(cornerRadiusEnd=3, height=11, yOffset=9)
        .encode(
            x=alt.X("s_per_gib:Q", title="Seconds paid for each GiB saved", scale=alt.Scale(nice=False)),
            y=y,
            color=alt.Color("offload:N", title="Offload", scale=colours(distinct(rows, "offload"))),
            tooltip=hover,
            description="label:N",
        ),
        written_above("rungs", y),
        height=42 * len(rows),
    )
    left = saving.height - len(rows)
    free = rungs.height - saving.height
    reading = (
        f"Each case against its twin that differs only in offload=none, by peak {MEMORY[memory]}. Shorter is a better trade."
        + (f" {free} case(s) save nothing and have no bar." if free else "")
        + (f" {left} more are in the table." if left else "")
    )
    return Picture(key="ladder", title=title, reading=reading, chart=chart, data={"rungs": rows})


def _rung(row: Row) -> Row:
    saved = row["saved_bytes"] / GIB
    paid, price = f"{row['extra_s']:+.1f} s for {saved:.1f} GiB", f"{row['s_per_gib']:.2f} s/GiB"
    return {**row, "paid": paid, "price": f"{price} (n={row['n']})", "told": f"{row['label']}: {price}, {paid}"}


def _scaling(results: Results) -> list[Picture]:
    titles = {"step_s": "What more GPUs bring", "efficiency_pct": "How much of each GPU is used"}
    frame = scaling(results.sweep.cases, results.summary)
    if frame.is_empty():
        why = "No two cases that ended ok differ only in the number of GPUs: there is no scaling to draw."
        return [Picture(key="scaling-time", title=titles["step_s"], reading="", why=why if _any_ok(results) else NO_OK)]
    rows = [{**row, "step": f"{row['step_s']:.3f} s", "pct": f"{row['efficiency_pct']:.0f} %"} for row in frame.iter_rows(named=True)]
    fastest = frame.sort("group", "gpus", "step_s").unique(["group", "gpus"], keep="first", maintain_order=True)
    data = {"cases": rows, "fastest": list(fastest.iter_rows(named=True))}
    reading = {
        "step_s": "Seconds of a denoising step; the line joins the fastest way at each number of GPUs. Loading and decoding are not in it.",
        "efficiency_pct": "Speed-up of a step over the number of GPUs, against the fewest GPUs that ran the same case. 100 % is perfect.",
    }
    unit = {"step_s": "Step (s)", "efficiency_pct": "Efficiency (%)"}
    counts = sorted({row["gpus"] for row in rows})
    parallels, groups = distinct(rows, "parallel"), distinct(rows, "group")
    hover = [CASE, *(alt.Tooltip(f"{name}:N", title=told) for name, told in {"step": "Step", "pct": "Efficiency", "n": "n"}.items())]
    made = []
    for name in ("step_s", "efficiency_pct"):
        x = alt.X("gpus:Q", title="GPUs", scale=alt.Scale(type="log", base=2, padding=20, nice=False), axis=alt.Axis(values=counts, format="d"))
        y = alt.Y(f"{name}:Q", title=unit[name], scale=alt.Scale(zero=True))
        shade = alt.Color("group:N", title="Case", scale=colours(groups))
        line = on("fastest").mark_line(strokeWidth=1.5).encode(x=x, y=y, color=shade)
        shape = alt.Shape("parallel:N", title="Parallel", scale=shapes(parallels))
        dots = on("cases").mark_point(filled=True, size=100).encode(x=x, y=y, color=shade, shape=shape, tooltip=hover, description="label:N")
        made.append(
            Picture(
                key=f"scaling-{name.split('_')[0]}",
                title=titles[name],
                reading=reading[name],
                chart=drawn(line, dots, height=320),
                data=data,
            )
        )
    return made


def _predicted(results: Results) -> Picture:
    title = "Predicted against measured"
    pairs = {"Time": ("predicted_total_s", "total_s"), "Step": ("predicted_step_s", "step_s")}
    rows = [
        {
            **{name: row[name] for name in ("case_id", "label")},
            "what": what,
            "predicted": row[guess],
            "measured": row[fact],
            "told": f"{figure(row, guess)} predicted, {figure(row, fact)} measured ({row[guess] / row[fact]:.2f} times)",
        }
        for row in results.summary.iter_rows(named=True)
        for what, (guess, fact) in pairs.items()
        if row[guess] and row[fact]
    ]
    if not rows:
        why = "There are no predictions in this run: every predicted figure of its summary is null, so measured values stand alone."
        return Picture(key="predicted", title=title, reading="", why=why if _any_ok(results) else NO_OK)
    values = [value for row in rows for value in (row["predicted"], row["measured"])]
    ends = [{"measured": at, "predicted": at} for at in (min(values), max(values))]
    scale = axis_scale(values)
    ticks = axis(values)
    x = alt.X("measured:Q", title="Measured (s)", scale=scale, axis=ticks)
    y = alt.Y("predicted:Q", title="Predicted (s)", scale=scale, axis=ticks)
    shade = alt.Color("what:N", title=None, scale=alt.Scale(domain=list(pairs), range=list(SERIES[: len(pairs)])))
    hover = [CASE, alt.Tooltip("what:N", title="What"), alt.Tooltip("told:N", title="Seconds")]
    chart = drawn(
        on("ends").mark_line(color=LINE, strokeDash=[4, 4]).encode(x=x, y=y),
        on("pairs").mark_point(filled=True, size=90).encode(x=x, y=y, color=shade, tooltip=hover, description="label:N"),
    )
    reading = "On the dashed line the prediction was right; above it the plan was too pessimistic, below too optimistic."
    return Picture(key="predicted", title=title, reading=reading, chart=chart, data={"ends": ends, "pairs": rows})


def _any_ok(results: Results) -> bool:
    return Outcome.OK in results.summary["outcome"].to_list()
