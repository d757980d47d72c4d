"""The pictures over all cases: time against memory, the offload ladder, scaling over GPUs, predicted against measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import altair as alt
import polars as pl

from wansweep.hardware import GPUS
from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report import drift, drift_plot
from wansweep.report.cells import figure
from wansweep.report.pictures import CASE, INK, LINE, MUTED, SERIES, Picture, Row, axis, axis_scale, colours, drawn, on, points_of_cases, shapes
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import frontier, ladder, memory_measured, scaling
from wansweep.units import GIB

# Bars of a ladder that are still read as one.
MOST_BARS = 60
_MEMORY = {"peak_reserved_bytes": "GPU memory reserved", "peak_allocated_bytes": "GPU memory allocated", "peak_host_bytes": "host memory"}
_NO_OK = "No case of this run ended ok, so there is nothing to draw. The table below has every case with its reason."
_NO_MEMORY = "No memory was measured in any case that ended ok."


def pictures(results: Results) -> list[Picture]:
    """In the order a reader asks; one that has nothing to show says why, and drift is left out of a run without lossy cases."""
    return [_cost(results), _ladder(results), *drift_plot.pictures(results), _predicted(results), *_scaling(results)]


def timed(row: Row) -> str:
    """Total time with its spread and n, as hovers tell it."""
    spread = f" ± {METRIC['total_s'].show(row['total_s_spread'])} s" if row["total_s_spread"] is not None else ""
    return f"{figure(row, 'total_s')}{spread} (n={row['n']})"


def _cost(results: Results) -> Picture:
    title, memory = "What fits, and how fast", memory_measured(results.summary)
    if memory is None:
        return Picture(key="cost", title=title, reading="", why=_NO_MEMORY if _any_ok(results) else _NO_OK)
    ok = results.summary.filter((pl.col("outcome") == str(Outcome.OK)) & pl.col("total_s").is_not_null() & pl.col(memory).is_not_null())
    points = [_point(row, memory) for row in ok.iter_rows(named=True)]
    if not points:
        return Picture(key="cost", title=title, reading="", why="No case that ended ok has both its time and its memory.")
    best = [_point(row, memory) for row in frontier(results.summary, memory).iter_rows(named=True)]
    top = max(point["gib"] for point in points)
    cards = _cards(top) if memory != "peak_host_bytes" else []
    x = alt.X("total_s:Q", title="Total time (s)", scale=axis_scale([point["total_s"] for point in points]))
    highest = 1.06 * max([top, *(card["gib"] for card in cards)])
    y = alt.Y("gib:Q", title=f"Peak {_MEMORY[memory]} (GiB)", scale=alt.Scale(domain=[0, highest], nice=False))
    offloads, models = _distinct(points, "offload"), _distinct(points, "model")
    hover = [CASE, alt.Tooltip("time:N", title="Time"), alt.Tooltip("memory:N", title="Memory"), alt.Tooltip("settings:N", title="Settings")]
    hover += [alt.Tooltip("drift:N", title="Drift")] if any(point["drift"] for point in points) else []
    chart = drawn(
        on("cards").mark_rule(strokeDash=[4, 4], color=MUTED, opacity=0.55).encode(y=y),
        on("cards").mark_text(align="right", dx=-2, dy=-6, color=MUTED, fontSize=11).encode(y=y, x=alt.value("width"), text="names:N"),
        on("frontier").mark_line(interpolate="step-after", color=INK, strokeWidth=1.5, opacity=0.7).encode(x=x, y=y),
        points_of_cases(x, y, colour=alt.Color("offload:N", title="Offload", scale=colours(offloads)), models=models, hover=hover),
        height=420,
    )
    return Picture(
        key="cost", title=title, reading=_cost_reading(results, cards), chart=chart, data={"points": points, "frontier": best, "cards": cards}
    )


def _point(row: Row, memory: str) -> Row:
    settings = f"{row['gpus']} GPU(s), {row['parallel']}, {row['width']}x{row['height']}x{row['frames']}, {row['steps']} steps, {row['dtype']}"
    told = {"time": timed(row), "memory": f"{figure(row, memory)}", "settings": settings, "drift": drift.told(row), "gib": row[memory] / GIB}
    return {**{name: row[name] for name in ("case_id", "label", "offload", "model", "total_s")}, **told}


def _cost_reading(results: Results, cards: Sequence[Row]) -> str:
    lines = "The line joins the cases that no other beats in both. "
    dashes = "Dashed lines are what cards of a size give out; a case under one fits it. " if cards else ""
    oom = results.summary.filter(pl.col("outcome") == str(Outcome.OOM)).height
    return f"{lines}{dashes}" + (f"{oom} case(s) ran out of memory and have no point." if oom else "")


def _cards(top: float) -> list[Row]:
    """A line a card that is not far above the points; names of cards that nearly coincide stand together, on the highest."""
    sizes: dict[float, list[str]] = {}
    for gpu in GPUS.values():
        if gpu.usable_bytes is not None:
            sizes.setdefault(gpu.usable_bytes / GIB, []).append(gpu.name)
    ordered = sorted(sizes.items())
    # Up to the first that holds every case, if that is of the points' order of size.
    holding = next((gib for gib, _ in ordered if gib >= top), top)
    shown = [(gib, names) for gib, names in ordered if gib <= min(holding, 4 * top)]
    rows: list[Row] = []
    names: list[str] = []
    for (gib, here), (above, _) in pairwise([*shown, (float("inf"), [])]):
        names += here
        apart = above - gib > 0.045 * shown[-1][0]
        rows.append({"gib": gib, "names": f"{', '.join(names)}: {gib:.1f}" if apart else ""})
        names = [] if apart else names
    return rows


def _ladder(results: Results) -> Picture:
    title = "What each saved GiB costs"
    memory = memory_measured(results.summary)
    rungs = ladder(results.sweep.cases, results.summary, memory) if memory else None
    if rungs is None or rungs.is_empty():
        why = (
            "No case that offloads and ended ok has a twin without offload that ended ok with its memory measured: there is nothing to compare."
        )
        return Picture(key="ladder", title=title, reading="", why=why if _any_ok(results) else _NO_OK)
    saving = rungs.filter(pl.col("s_per_gib").is_not_null())
    if saving.is_empty():
        return Picture(key="ladder", title=title, reading="", why=f"None of {rungs.height} offloading cases takes less memory than its twin.")
    assert memory is not None
    rows = [_rung(row) for row in saving.head(MOST_BARS).iter_rows(named=True)]
    longest = max(row["end"] for row in rows)
    y = alt.Y("label:N", title=None, sort=None, axis=alt.Axis(labelLimit=170, domain=False, ticks=False))
    hover = [CASE, alt.Tooltip("twin:N", title="Against"), alt.Tooltip("paid:N", title="Pays"), alt.Tooltip("price:N", title="Price")]
    chart = drawn(
        on("rungs")
        .mark_bar(cornerRadiusEnd=3, height={"band": 0.62})
        .encode(
            # Room for what stands behind the longest bar.
            x=alt.X("s_per_gib:Q", title="Seconds paid for each GiB saved", scale=alt.Scale(domainMax=1.15 * (longest or 1.0), nice=False)),
            y=y,
            color=alt.Color("offload:N", title="Offload", scale=colours(_distinct(rows, "offload"))),
            tooltip=hover,
            description="label:N",
        ),
        on("rungs").mark_text(align="left", dx=6, color=MUTED, fontSize=11).encode(x=alt.X("end:Q"), y=y, text="paid:N"),
        height=30 * len(rows),
    )
    left = saving.height - len(rows)
    free = rungs.height - saving.height
    reading = (
        f"Each case against its twin that differs only in offload=none, by peak {_MEMORY[memory]}. Shorter is a better trade."
        + (f" {free} case(s) save nothing and have no bar." if free else "")
        + (f" {left} more are in the table." if left else "")
    )
    return Picture(key="ladder", title=title, reading=reading, chart=chart, data={"rungs": rows})


def _rung(row: Row) -> Row:
    saved = row["saved_bytes"] / GIB
    paid = f"{row['extra_s']:+.1f} s for {saved:.1f} GiB"
    return {**row, "paid": paid, "price": f"{row['s_per_gib']:.2f} s/GiB (n={row['n']})", "end": max(row["s_per_gib"], 0.0)}


def _scaling(results: Results) -> list[Picture]:
    titles = {"step_s": "What more GPUs bring", "efficiency_pct": "How much of each GPU is used"}
    frame = scaling(results.sweep.cases, results.summary)
    if frame.is_empty():
        why = "No two cases that ended ok differ only in the number of GPUs: there is no scaling to draw."
        return [Picture(key="scaling-time", title=titles["step_s"], reading="", why=why if _any_ok(results) else _NO_OK)]
    rows = [{**row, "step": f"{row['step_s']:.3f} s", "pct": f"{row['efficiency_pct']:.0f} %"} for row in frame.iter_rows(named=True)]
    fastest = frame.sort("group", "gpus", "step_s").unique(["group", "gpus"], keep="first", maintain_order=True)
    data = {"cases": rows, "fastest": list(fastest.iter_rows(named=True))}
    reading = {
        "step_s": "Seconds of a denoising step; the line joins the fastest way at each number of GPUs. Loading and decoding are not in it.",
        "efficiency_pct": "Speed-up of a step over the number of GPUs, against the fewest GPUs that ran the same case. 100 % is perfect.",
    }
    unit = {"step_s": "Step (s)", "efficiency_pct": "Efficiency (%)"}
    counts = sorted({row["gpus"] for row in rows})
    parallels, groups = _distinct(rows, "parallel"), _distinct(rows, "group")
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
        return Picture(key="predicted", title=title, reading="", why=why if _any_ok(results) else _NO_OK)
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


def _distinct(rows: Sequence[Row], name: str) -> list[str]:
    """The values of a field in order of appearance."""
    return list(dict.fromkeys(str(row[name]) for row in rows))
