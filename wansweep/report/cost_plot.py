"""The picture of what fits and how fast: memory against time, the cases that no other beats joined, and what each card gives out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import polars as pl

from wansweep.hardware import GPUS
from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report import drift
from wansweep.report.cells import figure
from wansweep.report.choosing import MEMORY
from wansweep.report.pictures import CASE, INK, MUTED, NO_OK, PANEL, Picture, Row, colours, distinct, drawn, on, points_of_cases, times
from wansweep.tables.choices import Choices, choices
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import HOST, memory_measured
from wansweep.units import GIB

LEVERS = {"offload": "Offload", "cache": "Cache", "quant": "Quant", "attention": "Attention", "parallel": "Parallel", "dtype": "dtype"}
_NO_MEMORY = "No memory was measured in any case that ended ok."
_NAMES: dict[str, Any] = {"align": "right", "dx": -2, "dy": -7, "color": MUTED, "fontSize": 11}


def picture(results: Results) -> Picture:
    """The picture, or why there is none."""
    title, memory = "What fits, and how fast", memory_measured(results.summary)
    if memory is None:
        return Picture(key="cost", title=title, reading="", why=_NO_MEMORY if Outcome.OK in results.summary["outcome"].to_list() else NO_OK)
    ok = results.summary.filter((pl.col("outcome") == str(Outcome.OK)) & pl.col("total_s").is_not_null() & pl.col(memory).is_not_null())
    videos = choices(results)
    ahead = {one.candidate.case.id for video in videos for one in video.choices}
    points = [_point(row, memory, ahead) for row in ok.iter_rows(named=True)]
    if not points:
        return Picture(key="cost", title=title, reading="", why="No case that ended ok has both its time and its memory.")
    best = _frontier(videos)
    top = max(point["gib"] for point in points)
    cards = _cards(top) if memory != HOST else []
    x = times([point["total_s"] for point in points], title="Total time (s)")
    highest = 1.06 * max([top, *(card["gib"] for card in cards)])
    y = alt.Y("gib:Q", title=f"Peak {MEMORY[memory]} (GiB)", scale=alt.Scale(domain=[0, highest], nice=False))
    lever, models = _lever(points), distinct(points, "model")
    colour = alt.Color(f"{lever}:N", title=LEVERS[lever], scale=colours(distinct(points, lever)))
    hover = [CASE, alt.Tooltip("time:N", title="Time"), alt.Tooltip("memory:N", title="Memory"), alt.Tooltip("settings:N", title="Settings")]
    hover += [alt.Tooltip("drift:N", title="Drift")] if any(point["drift"] for point in points) else []
    names = on("cards").encode(y=y, x=alt.value("width"), text="names:N")
    chart = drawn(
        on("cards").mark_rule(strokeDash=[4, 4], color=MUTED, opacity=0.55).encode(y=y),
        # Twice: the broader one, of the page's colour, keeps lines that cross it away.
        names.mark_text(**_NAMES, stroke=PANEL, strokeWidth=4, strokeJoin="round"),
        names.mark_text(**_NAMES),
        on("frontier").mark_line(interpolate="step-after", color=INK, strokeWidth=1.5, opacity=0.7).encode(x=x, y=y, detail="line:N"),
        points_of_cases(x, y, colour=colour, models=models, hover=hover).encode(opacity=alt.Opacity("weight:Q", scale=None)),
        on("points").mark_text(align="right", dx=-9, color=MUTED, fontSize=11).encode(x=x, y=y, text="beside:N"),
        height=420,
    )
    return Picture(
        key="cost", title=title, reading=_reading(results, cards), chart=chart, data={"points": points, "frontier": best, "cards": cards}
    )


def _timed(row: Row) -> str:
    """Total time with its spread and n, as hovers tell it."""
    spread = f" ± {METRIC['total_s'].show(row['total_s_spread'])} s" if row["total_s_spread"] is not None else ""
    return f"{figure(row, 'total_s')}{spread} (n={row['n']})"


def _lever(points: Sequence[Row]) -> str:
    """What the points have the colours of: offload, and in a run with one mode of it the lever that was turned most."""
    turned = {name: len(distinct(points, name)) for name in LEVERS}
    return "offload" if turned["offload"] > 1 else max(LEVERS, key=lambda name: turned[name])


def _point(row: Row, memory: str, ahead: Collection[str]) -> Row:
    settings = f"{row['gpus']} GPU(s), {row['parallel']}, {row['width']}x{row['height']}x{row['frames']}, {row['steps']} steps, {row['dtype']}"
    told = {"time": _timed(row), "memory": f"{figure(row, memory)}", "settings": settings, "drift": drift.told(row), "gib": row[memory] / GIB}
    first = row["case_id"] in ahead
    told |= {"weight": 0.95 if first else 0.45, "beside": f"{row['gpus']} GPUs" if first and (row["gpus"] or 1) > 1 else ""}
    return {**{name: row[name] for name in ("case_id", "label", "model", "total_s", *LEVERS)}, **told}


def _frontier(videos: Sequence[Choices]) -> list[Row]:
    """The corners of a line for each video and number of GPUs that has two at least: of its choices those with less memory than any faster."""
    rows: list[Row] = []
    for video in videos:
        for gpus in dict.fromkeys(one.candidate.gpus for one in video.choices):
            line: list[Row] = []
            for row, peak in ((one.candidate.row, one.memory_bytes) for one in video.choices if one.candidate.gpus == gpus):
                if peak is not None and (not line or peak / GIB < line[-1]["gib"]):
                    told = f"{video.title}, {gpus or 1} GPU(s)"
                    line.append({"label": row["label"], "line": told, "total_s": row["total_s"], "gib": peak / GIB})
            rows += line if len(line) > 1 else []
    return rows


def _reading(results: Results, cards: Sequence[Row]) -> str:
    lines = "A line joins the cases of one video and number of GPUs that no other beats in both; the others are pale. "
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
