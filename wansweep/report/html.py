"""report.html: one file that needs no network, with pictures, a table to sort and filter, and every case's breakdown.

Pictures are Vega-Lite, made with Altair; vl-convert gives the JavaScript that draws them, which is put into the page. Text of users' (labels,
prompts, reasons, paths) is escaped in HTML, and in JSON so that it cannot end its script element; page/*.js shows it as text only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any

import polars as pl

from wansweep.record import Record
from wansweep.report import case_plots, case_table, choosing, pictures, plots
from wansweep.report.library import library
from wansweep.report.markdown import left_out, sections
from wansweep.report.pictures import Picture, Row
from wansweep.tables.compute import device_names
from wansweep.tables.evidence import Evidence
from wansweep.tables.repeats import counted
from wansweep.tables.results import Results, narrowed
from wansweep.units import NOT_MEASURED

# Of contact sheets and of the data of cases' pictures, in the page; what is over is found in frames/ and trace.json.
SHEETS_BYTES = 4_000_000
CURVES_BYTES = 4_000_000


def render(results: Results, evidence: Evidence | None = None, *, breakdowns: Mapping[str, str] | None = None) -> str:
    """The page of a run.

    Args:
        results: The run.
        evidence: Without it, no memory over time and no contact sheets.
        breakdowns: Case id to its section of report.md, when that was made before; else it is made here.
    """
    shown = spokesmen(results)
    over_all = plots.pictures(results)
    # Two abreast but for the first; an odd one has the row to itself.
    pairs = [one.key for one in over_all[1:] if one.chart]
    alone = pairs[-1] if len(pairs) % 2 else None
    drawn = "".join(_figure(one, wide=one.key == alone) for one in over_all)
    told = sections(results) if breakdowns is None else breakdowns
    body = [
        _header(results),
        choosing.page(results),
        f'<section id="trade"><h2>Choosing</h2><div class="pictures">{drawn}</div></section>',
        _one_case(results),
        f'<section id="all"><h2>Every case</h2><p class="reading">{_TABLE}</p>{case_table.render(results, shown)}</section>',
        _environment(results),
    ]
    data = [_json("palettes", pictures.PALETTES), _json("configs", {theme: pictures.config(theme) for theme in pictures.PALETTES})]
    data += [_json(f"chart-{one.key}", {"chart": one.chart, "data": one.data}) for one in [*over_all, *case_plots.pictures()] if one.chart]
    data += _cases(results, shown, evidence or Evidence(), told)
    return _PAGE.format(
        policy=_POLICY,
        title=escape(f"{results.sweep.name}: wansweep report"),
        css=_asset("page.css"),
        body="\n".join(body),
        data="\n".join(data),
        library=library(),
        scripts="\n".join(f"<script>\n{_asset(name)}</script>" for name in ("charts.js", "breakdown.js", "table.js")),
    )


def spokesmen(results: Results) -> dict[str, Record]:
    """Case id to the trial that its pictures show: the first that counts, else the first."""
    of_case: dict[str, list[Record]] = {}
    for record in results.records:
        of_case.setdefault(record.case_id, []).append(record)
    return {case_id: next(iter([*counted(records), *records])) for case_id, records in of_case.items()}


def in_script(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return (
        text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


# The browser itself holds the page to having no network; Vega compiles its expressions, and sheets beyond the room lie in frames/.
_POLICY = "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"
_TABLE = (
    "Headings sort, names open a case's breakdown. A column in which nothing was measured is left out; n/a is not measured, a 0 was measured."
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
{body}
</main>
{data}
<script>
{library}
</script>
{scripts}
</body>
</html>
"""


def _header(results: Results) -> str:
    sweep = results.sweep
    counts = results.summary.group_by("outcome", maintain_order=True).len().iter_rows()
    chips = "".join(
        f'<a href="#all" class="outcome {(outcome or case_table.NOT_RUN).split()[0]}" data-outcome="{outcome or case_table.NOT_RUN}">'
        f"{count} {outcome or case_table.NOT_RUN}</a>"
        for outcome, count in counts
    )
    began = min((record.started_utc for record in results.records), default="")
    when = f"{escape(began[:16].replace('T', ' '))} UTC · " if began else ""
    repeats = f"{sweep.procedure.repeats} trial{'s' if sweep.procedure.repeats > 1 else ''} a case"
    return (
        '<header><div class="bar"><span class="brand">wansweep</span>'
        '<nav><a href="#trade">Choosing</a><a href="#one">One case</a><a href="#all">Every case</a><a href="#environment">Environment</a></nav>'
        '<button type="button" id="theme" aria-label="Change between light and dark">Dark</button></div>'
        f'<h1>{escape(sweep.name)}</h1><p class="about">{when}{results.summary.height} cases · {repeats} · {escape(_machine(results))}</p>'
        f'<p class="chips">{chips}</p></header>'
    )


def _machine(results: Results) -> str:
    if results.environment.imported:
        return f"imported from {results.environment.imported}"
    gpus = [gpu.name or "unnamed GPU" for gpu in results.environment.gpus]
    if gpus:
        return f"{len(gpus)} x {gpus[0]}" if len(set(gpus)) == 1 else ", ".join(gpus)
    # The driver's machine may have none of the cluster's.
    elsewhere = {name for one in results.records if one.resolved and one.resolved.device == "cuda" for name in device_names(one)}
    return ", ".join(sorted(elsewhere)) or results.environment.cpu


def _figure(picture: Picture, *, wide: bool = False) -> str:
    head = f"<h3>{escape(picture.title)}</h3>"
    if picture.chart is None:
        return f'<figure id="{picture.key}" class="without">{head}<p class="empty">{escape(picture.why)}</p></figure>'
    reading = f'<figcaption class="reading">{escape(picture.reading)}</figcaption>'
    kind = ' class="wide"' if wide else ""
    return f'<figure id="{picture.key}"{kind}>{head}{reading}<div class="chart"></div><p class="picked" aria-live="polite"></p></figure>'


def _one_case(results: Results) -> str:
    rows = results.summary.iter_rows(named=True)
    options = "".join(f'<option value="{escape(row["case_id"], quote=True)}">{escape(row["label"])}</option>' for row in rows)
    figures = "".join(_figure(picture) for picture in case_plots.pictures())
    return (
        f'<section id="one"><h2>One case</h2><p><label class="choose">Case <select id="chosen">{options}</select></label> '
        f'<a id="to-breakdown" href="#all">its breakdown</a></p><div class="pictures one">{figures}</div></section>'
    )


def _cases(results: Results, shown: Mapping[str, Record], evidence: Evidence, told: Mapping[str, str]) -> Iterator[str]:
    """A data block a case, which the page parses when the case is looked at."""
    own = narrowed(results, told)
    room = {"sheets": SHEETS_BYTES, "curves": CURVES_BYTES}
    for row in results.summary.iter_rows(named=True):
        record = shown.get(row["case_id"])
        if row["case_id"] not in told:
            yield _json(f"data-{row['case_id']}", _elsewhere(row))
            continue
        case: dict[str, Any] = {"label": row["label"], "breakdown": told[row["case_id"]], "pictures": {}, "why": {}, "sheet": None}
        if record is not None:
            case_results = own[row["case_id"]]
            trials = [one.trial for one in case_results.records if one.outcome is record.outcome]
            curves = evidence.curves(record) if room["curves"] > 0 else None
            case["pictures"] = case_plots.case_data(record, case_results.stages.filter(pl.col("trial").is_in(trials)), curves)
            room["curves"] -= len(json.dumps(case["pictures"]["memory"])) if curves is not None else 0
            case["sheet"] = _sheet(record, evidence.sheets(record), room)
        case["why"] = {key: case_plots.why_empty(record, key) for key in case_plots.KEYS}
        yield _json(f"data-{row['case_id']}", case)


def _elsewhere(row: Row) -> dict[str, Any]:
    """The data block of a case that the page has no room for."""
    why = "The page has pictures and breakdowns of its first cases only"
    where = left_out(row["label"])
    return {
        "label": row["label"],
        "breakdown": f"{why}; {where} prints this one.",
        "pictures": {},
        "why": dict.fromkeys(case_plots.KEYS, f"{why}; trace.json and stages.parquet have all"),
        "sheet": None,
    }


def _sheet(record: Record, content: bytes | None, room: dict[str, int]) -> str | None:
    """The contact sheet's address: in the page while there is room, else its file beside the page."""
    if content is None:
        return None
    if len(content) > room["sheets"]:
        return f"frames/{record.case_id}-{record.trial}.jpg"
    room["sheets"] -= len(content)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _environment(results: Results) -> str:
    environment = results.environment
    git = f"{environment.git.commit[:12]}{' with changes' if environment.git.dirty else ''}" if environment.git else "no checkout"
    gpus = ", ".join(gpu.name or "unnamed" for gpu in environment.gpus) or f"none ({environment.nvml or NOT_MEASURED})"
    facts: Row = {
        "Command": results.sweep.command,
        "GPUs": gpus,
        "CPU": environment.cpu,
        "System": ", ".join(filter(None, (environment.system, environment.distribution))),
        "Python": environment.python,
        **{name: version or "not installed" for name, version in environment.packages.items()},
        "Source": git,
    }
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items())
    notes = [f"{left.case.label}: left out, {left.reason}" for left in results.sweep.excluded]
    notes += [f"records/{file.name}: could not be read, {file.why}" for file in results.unreadable]
    listed = f"<h3>Left out and unreadable</h3><ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else ""
    return f'<section id="environment"><h2>Environment</h2><dl>{told}</dl>{listed}</section>'


def _json(id_: str, value: object) -> str:
    return f'<script type="application/json" id="{escape(id_, quote=True)}">{in_script(value)}</script>'


def _asset(name: str) -> str:
    return (resources.files("wansweep.report") / "page" / name).read_text()
