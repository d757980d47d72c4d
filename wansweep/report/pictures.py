"""What a picture of report.html is, and the names of its colours.

A picture is an Altair chart without its data, so that the page can put the colours of its theme into the chart: ``colour:ink`` in a chart
stands for ``PALETTES[theme]["ink"]``. Text of users' stands in data only. The palette is Okabe and Ito's for all kinds of colour vision
(jfly.uni-koeln.de/color), lightened for dark pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10
from typing import Any

import altair as alt

Row = dict[str, Any]

PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "ink": "#1c2024",
        "panel": "#ffffff",
        "muted": "#646b73",
        "grid": "#e4e7ea",
        "line": "#c4c9ce",
        "blue": "#0072b2",
        "vermilion": "#d55e00",
        "green": "#009e73",
        "pink": "#b8588f",
        "sky": "#56b4e9",
        "orange": "#e69f00",
        "violet": "#6a51a3",
        "grey": "#8b9198",
    },
    "dark": {
        "ink": "#e8eaed",
        "panel": "#1b1f23",
        "muted": "#9aa2ab",
        "grid": "#2b3036",
        "line": "#474e56",
        "blue": "#4aa3df",
        "vermilion": "#f0803c",
        "green": "#2fbf95",
        "pink": "#e08fbd",
        "sky": "#8fd0f5",
        "orange": "#f2b93b",
        "violet": "#a993e0",
        "grey": "#7d858e",
    },
}
# Legends one under the other: side by side they run out of a narrow page.
_STACKED = {"layout": {"bottom": {"anchor": "start", "direction": "vertical"}}, "columnPadding": 14}
SERIES = tuple(f"colour:{name}" for name in ("blue", "vermilion", "green", "pink", "orange", "violet", "sky", "grey"))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left", "wedge", "arrow")
INK, MUTED, LINE, PANEL = "colour:ink", "colour:muted", "colour:line", "colour:panel"
CASE = alt.Tooltip("label:N", title="Case")
NO_OK = "No case of this run ended ok, so there is nothing to draw. The table below has every case with its reason."


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One figure of the page.

    Attributes:
        key: Its id in the page.
        title: What it answers.
        reading: How to read it, a sentence or two; plain text.
        chart: Vega-Lite without data; null when there is nothing to draw.
        data: The chart's named data; rows with a ``case_id`` can be picked.
        why: Without a chart, why there is none.
    """

    key: str
    title: str
    reading: str
    chart: Mapping[str, Any] | None = None
    data: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    why: str = ""


def drawn(*layers: alt.Chart, height: int = 360) -> dict[str, Any]:
    """Layers as one chart as wide as its place on the page."""
    chart: dict[str, Any] = alt.layer(*layers).properties(width="container", height=height).to_dict()
    return chart


def on(data: str) -> alt.Chart:
    """A chart over one of the picture's data by name."""
    return alt.Chart(alt.NamedData(data))


def written_above(data: str, y: alt.Y) -> alt.Chart:
    """``told`` of each row above its bar and over the whole width: beside the bar the longest would run out of a narrow page."""
    text = on(data).mark_text(align="left", dy=-7, color=INK, fontSize=11.5, limit=alt.ExprRef("width"))
    labelled: alt.Chart = text.encode(x=alt.value(0), y=y, text="told:N")
    return labelled


def distinct(rows: Sequence[Row], name: str) -> list[str]:
    """The values of a field in order of appearance."""
    return list(dict.fromkeys(str(row[name]) for row in rows))


def colours(names: Sequence[str]) -> alt.Scale:
    """A colour for each name, in order; the palette begins again where there are more names than colours."""
    return alt.Scale(domain=list(names), range=[SERIES[place % len(SERIES)] for place in range(len(names))])


def shapes(names: Sequence[str]) -> alt.Scale:
    """A symbol for each name, likewise."""
    return alt.Scale(domain=list(names), range=[SHAPES[place % len(SHAPES)] for place in range(len(names))])


def points_of_cases(x: alt.X, y: alt.Y, *, colour: alt.Color, models: Sequence[str], hover: Sequence[alt.Tooltip]) -> alt.Chart:
    """A point a case, its symbol its model; named by its label for hands, screen readers and tests."""
    legend = alt.Legend(title="Model") if len(models) > 1 else None
    shape = alt.Shape("model:N", scale=shapes(models), legend=legend)
    marks: alt.Chart = on("points").mark_point(filled=True, size=110, opacity=0.9)
    encoded: alt.Chart = marks.encode(x=x, y=y, color=colour, shape=shape, tooltip=list(hover), description="label:N")
    return encoded


def axis_scale(values: Sequence[float], *, zero: bool = False) -> alt.Scale:
    """Linear, or logarithmic for values of more than one and a half orders of magnitude."""
    if values and min(values) > 0 and max(values) / min(values) > 30:
        return alt.Scale(type="log", nice=False, padding=24)
    return alt.Scale(zero=zero, padding=24) if not zero else alt.Scale(zero=True)


def times(values: Sequence[float], *, title: str) -> alt.X:
    """An axis of seconds with room on its right for what stands beside the slowest: logarithmic from one order of magnitude on."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 10:
        ratio = high / low
        factors = (1, 2, 5) if ratio < 30 else (1, 3)
        ticks = [factor * 10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1) for factor in factors]
        scale = alt.Scale(type="log", nice=False, domain=[low / ratio**0.06, high * ratio**0.2])
        return alt.X("total_s:Q", title=title, scale=scale, axis=alt.Axis(values=ticks, format="~g"))
    span = high - low or high or 1.0
    return alt.X("total_s:Q", title=title, scale=alt.Scale(zero=False, nice=True, domain=[max(0.0, low - 0.08 * span), high + 0.22 * span]))


def axis(values: Sequence[float]) -> alt.Axis:
    """The axis of `axis_scale`: a logarithmic one names 1, 10, 100 and a value between them, since Vega's choice runs into itself."""
    if axis_scale(values).to_dict().get("type") != "log":
        return alt.Axis()
    first, last = floor(log10(min(values))), ceil(log10(max(values)))
    return alt.Axis(values=[factor * 10.0**power for power in range(first, last + 1) for factor in (1, 3)], format="~g")


def _symbols(colour: str) -> dict[str, Any]:
    """Symbols of legends: as plain as the marks are not, and of the page's ink where they have no colour of their own."""
    return {"symbolBaseFillColor": colour, "symbolBaseStrokeColor": colour, "symbolOpacity": 1}


def config(theme: str) -> dict[str, Any]:
    """Vega's look on a page of a theme."""
    palette = PALETTES[theme]
    text = {"labelColor": palette["muted"], "titleColor": palette["ink"], "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 600}
    return {
        "background": None,
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif",
        "view": {"stroke": None},
        "axis": {
            **text,
            "gridColor": palette["grid"],
            "domainColor": palette["line"],
            "tickColor": palette["line"],
            "titlePadding": 10,
            "labelPadding": 6,
        },
        "legend": {
            **text,
            **_symbols(palette["muted"]),
            "orient": "bottom",
            "direction": "horizontal",
            "symbolSize": 90,
            "labelLimit": 200,
            "offset": 8,
            **_STACKED,
        },
        "text": {"color": palette["ink"], "fontSize": 12},
        "range": {"category": [palette[name.removeprefix("colour:")] for name in SERIES]},
    }
