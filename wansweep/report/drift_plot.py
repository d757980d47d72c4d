"""The picture of drift: how far each case's video is from its lossless twin's, over the time it takes."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from wansweep.lossy import lossy_levers
from wansweep.record import Outcome
from wansweep.report import drift
from wansweep.report.cells import figure
from wansweep.report.pictures import CASE, MUTED, Picture, Row, axis_scale, colours, drawn, on, points_of_cases
from wansweep.tables.results import Results

_LOSSLESS = "lossless"
_TITLE = "What lossy levers do to the video"


def pictures(results: Results) -> list[Picture]:
    """One, or none for a run without lossy cases."""
    lossy = {case.id: lossy_levers(case) for case in results.sweep.cases}
    if not any(lossy.values()):
        return []
    ok = results.summary.filter((pl.col("outcome") == str(Outcome.OK)) & pl.col("latent_error").is_not_null() & pl.col("total_s").is_not_null())
    points = [_point(row, lossy[row["case_id"]]) for row in ok.iter_rows(named=True)]
    if not points:
        why = "No lossy case has a measured drift: the table under report.md's heading Drift, and drift_why of summary.parquet, say why."
        return [Picture(key="drift", title=_TITLE, reading="", why=why)]
    x = alt.X("total_s:Q", title="Total time (s)", scale=axis_scale([point["total_s"] for point in points]))
    y = alt.Y("flip:Q", title="FLIP against the lossless twin (0: the same)", scale=alt.Scale(domain=[0, _top(points)], nice=False))
    levers = list(dict.fromkeys(point["lever"] for point in points))
    models = list(dict.fromkeys(point["model"] for point in points))
    hover = [CASE, alt.Tooltip("time:N", title="Time"), alt.Tooltip("lossy:N", title="Lossy"), alt.Tooltip("drift:N", title="Drift")]
    chart = drawn(
        on("points").mark_rule(color=MUTED, opacity=0.35).encode(x=x, y=y, y2=alt.Y2Datum(0)),
        points_of_cases(x, y, colour=alt.Color("lever:N", title="Lossy lever", scale=colours(levers)), models=models, hover=hover),
        height=320,
    )
    reading = (
        "FLIP is what somebody sees who alternates between the case's frames and those of its lossless twin, made from the same seed. "
        "Lower is nearer; hover for SSIM, PSNR, latents and the floor, which is how far the twin's own repeats are apart."
    )
    return [Picture(key="drift", title=_TITLE, reading=reading, chart=chart, data={"points": points})]


def _point(row: Row, lossy: list[str]) -> Row:
    told = {"time": f"{figure(row, 'total_s')} (n={row['n']})", "lossy": ", ".join(lossy) or _LOSSLESS, "drift": drift.told(row)}
    # A cache and its strength are one lever.
    lever = " + ".join(one for one in lossy if not one.startswith("cache_")) or _LOSSLESS
    return {**{name: row[name] for name in ("case_id", "label", "model", "total_s", "flip")}, **told, "lever": lever}


def _top(points: Sequence[Row]) -> float:
    """The end of the axis: above every point, and not of a picture of nothing but zeros."""
    return max(0.01, *(1.1 * float(point["flip"]) for point in points))
