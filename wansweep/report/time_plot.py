"""The picture of where the time of every case went: loading, text encoding, denoising, decoding, and the rest of its total."""

from __future__ import annotations

import altair as alt
import polars as pl

from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report.case_plots import GROUPS
from wansweep.report.pictures import CASE, Picture, Row, drawn, on, written_above
from wansweep.tables.results import Results

# More rows are no glance; the table has all.
MOST_CASES = 30
_REST = "Rest"
_PARTS = ("Loading", "Text encoding", "Denoising", "VAE decoding", _REST)
_TITLE = "Where the time goes"


def pictures(results: Results) -> list[Picture]:
    """One; none without a case whose total is known, since other pictures say why."""
    ok = results.summary.filter((pl.col("outcome") == str(Outcome.OK)) & (pl.col("total_s") > 0) & pl.col("step_s").is_not_null())
    rows = ok.head(MOST_CASES).to_dicts()
    if not rows:
        return []
    parts = [part for row in rows for part in _shares(row)]
    y = alt.Y("label:N", title=None, sort=None, axis=None)
    shade = alt.Scale(domain=list(_PARTS), range=[GROUPS.get(name, GROUPS["Save"]) for name in _PARTS])
    hover = [CASE, alt.Tooltip("part:N", title="Part"), alt.Tooltip("told:N", title="Seconds")]
    chart = drawn(
        on("parts")
        .mark_bar(height=11, yOffset=8)
        .encode(
            x=alt.X(
                "from:Q",
                title="Share of the total (%)",
                scale=alt.Scale(domain=[0, 100], nice=False),
                axis=alt.Axis(values=[0, 25, 50, 75, 100]),
            ),
            x2="to:Q",
            y=y,
            color=alt.Color("part:N", title=None, scale=shade),
            tooltip=hover,
            description="label:N",
        ),
        written_above("totals", y),
        height=38 * len(rows),
    )
    totals = [{"label": row["label"], "told": f"{row['label']}: {METRIC['total_s'].show(row['total_s'])} s"} for row in rows]
    left = f" {ok.height - len(rows)} more cases are in the table." if ok.height > len(rows) else ""
    reading = f"Medians over the trials. Loading holds the experts' way to the GPU too, the rest Preprocess and what lies in no stage.{left}"
    return [Picture(key="time", title=_TITLE, reading=reading, chart=chart, data={"parts": parts, "totals": totals})]


def _shares(row: Row) -> list[Row]:
    """The parts one after the other, in percent of the total."""
    seconds = {
        "Loading": row["load_s"],
        "Text encoding": row["text_encode_s"],
        "Denoising": row["step_s"] * (row["steps"] or 0),
        "VAE decoding": row["vae_decode_s"],
    }
    seconds = {name: value or 0.0 for name, value in seconds.items()}
    seconds[_REST] = max(0.0, row["total_s"] - sum(seconds.values()))
    at, rows = 0.0, []
    for name, value in seconds.items():
        share = 100 * value / max(row["total_s"], sum(seconds.values()))
        told = f"{METRIC['total_s'].show(value)} s, {share:.0f} %"
        rows.append({"case_id": row["case_id"], "label": row["label"], "part": name, "from": at, "to": at + share, "told": told})
        at += share
    return rows
