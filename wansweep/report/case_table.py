"""The table of every case in report.html, with what to filter it by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from wansweep.metrics import METRIC
from wansweep.record import Record
from wansweep.report.pictures import Row
from wansweep.tables.drift import IDENTICAL
from wansweep.tables.results import Results
from wansweep.units import NOT_MEASURED

FILTERS = {"outcome": "Outcome", "model": "Model", "offload": "Offload", "gpus": "GPUs"}
_SETTINGS = {
    "model": "Model",
    "size": "Resolution",
    "steps": "Steps",
    "gpus": "GPUs",
    "parallel": "Parallel",
    "offload": "Offload",
    "dtype": "dtype",
    "quant": "Quant",
    "attention": "Attention",
    "cache": "Cache",
}
# What a case is chosen by stands before its settings, the rest after them.
_FIRST = ("total_s", "half_width_pct", "step_s", "peak_device_bytes")
_FIGURES = (
    "peak_reserved_bytes",
    "peak_allocated_bytes",
    "peak_host_bytes",
    "load_s",
    "vae_decode_s",
    "sm_active_pct",
    "gpu_busy_pct",
    "energy_j",
    "tflops",
    "mfu_pct",
    "ssim",
    "psnr_db",
    "flip",
    "latent_error",
    "predicted_total_s",
    "predicted_step_s",
    "predicted_peak_bytes",
)
_COUNTS = ("steps", "gpus")
NOT_RUN = "not run yet"
_INFINITE = "1e9"


def render(results: Results, shown: Mapping[str, Record]) -> str:
    """The filters and the table.

    Args:
        results: The run.
        shown: Case id to the trial that speaks for it.
    """
    rows = [_settled(row) for row in results.summary.iter_rows(named=True)]
    # A column in which nothing was measured would only be in the way; the columns that say how a case ended always stand.
    first, figures = ([name for name in names if any(row[name] is not None for row in rows)] for names in (_FIRST, _FIGURES))
    headings = [_heading("Case", number=False), _heading("Outcome", number=False)]
    headings += [_heading(METRIC[name].heading, number=True) for name in first]
    headings += [_heading(label, number=name in _COUNTS) for name, label in _SETTINGS.items()]
    headings += [_heading(METRIC[name].heading, number=True) for name in figures]
    headings += [_heading("n", number=True), *(_heading(label, number=False) for label in ("Stable", "Video", "Reason"))]
    videos = Counter(_video(shown.get(row["case_id"])) for row in rows)
    body = "".join(_row(row, first, figures, shown.get(row["case_id"]), videos) for row in rows)
    return (
        f'{_filters(rows)}<div class="box" tabindex="0" role="region" aria-label="Every case"><table id="cases"><thead><tr>{"".join(headings)}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _settled(row: Row) -> Row:
    return {**row, "outcome": row["outcome"] or NOT_RUN, "size": f"{row['width']}x{row['height']}x{row['frames']}"}


def _filters(rows: Sequence[Row]) -> str:
    values = {name: _options([str(row[name]) for row in rows]) for name in FILTERS}
    chosen = "".join(
        f'<label>{label} <select data-filter="{name}"><option value="">all</option>{values[name]}</select></label>'
        for name, label in FILTERS.items()
    )
    search = '<label>Find <input type="search" id="find" placeholder="case, setting, reason" autocomplete="off"></label>'
    return f'<form class="filters" id="filters">{search}{chosen}<output id="count" aria-live="polite"></output></form>'


def _options(values: Sequence[str]) -> str:
    return "".join(f"<option>{escape(value)}</option>" for value in dict.fromkeys(values))


def _heading(label: str, *, number: bool) -> str:
    kind = "number" if number else "text"
    return f'<th scope="col" aria-sort="none" class="{kind}"><button type="button">{escape(label)}</button></th>'


def _row(row: Row, first: Sequence[str], figures: Sequence[str], record: Record | None, videos: Mapping[str, int]) -> str:
    id_, label = escape(row["case_id"], quote=True), escape(row["label"])
    keys = " ".join(f'data-{name}="{escape(str(row[name]), quote=True)}"' for name in FILTERS)
    cells = [
        f'<th scope="row"><button type="button" class="open" aria-expanded="false">{label}</button></th>',
        f'<td title="{escape(row["reason"] or "", quote=True)}"><span class="outcome {row["outcome"].split()[0]}">{row["outcome"]}</span></td>',
    ]
    cells += [_figure(name, row) for name in first]
    cells += [_count(row[name]) if name in _COUNTS else _text(row[name]) for name in _SETTINGS]
    cells += [_figure(name, row) for name in figures]
    cells += [_count(row["n"]), _text(row["stable"]), _video_cell(_video(record), videos), _reason(row["reason"])]
    return f'<tr id="case-{id_}" data-case="{id_}" {keys}>{"".join(cells)}</tr>'


def _text(value: object) -> str:
    return f"<td>{escape(str(value))}</td>" if value is not None else f'<td class="none">{NOT_MEASURED}</td>'


def _count(value: int) -> str:
    return f'<td class="number" data-value="{value}">{value}</td>'


def _figure(name: str, row: Row) -> str:
    metric, value = METRIC[name], row[name]
    if name == "psnr_db" and row["psnr_db_why"] == IDENTICAL:  # infinite, and so the highest when sorted
        return f'<td class="number" data-value="{_INFINITE}">{IDENTICAL}</td>'
    if value is None:
        return f'<td class="number none">{NOT_MEASURED}</td>'
    spread = row.get(f"{name}_spread")
    told = f' title="± {metric.show(spread)} {metric.unit.symbol} over n={row["n"]}"' if spread is not None else ""
    return f'<td class="number" data-value="{value:.9g}"{told}>{metric.show(value)}</td>'


def _reason(reason: str | None) -> str:
    text = escape(reason or "", quote=True)
    return f'<td class="reason" title="{text}">{text}</td>'


def _video(record: Record | None) -> str:
    """The hash of the video's pixels; empty where none was taken."""
    ran = record.resolved if record else None
    return (ran.output_sha256 or "") if ran else ""


def _video_cell(sha256: str, videos: Mapping[str, int]) -> str:
    if not sha256:
        return f'<td class="none">{NOT_MEASURED}</td>'
    same = videos[sha256]
    equal = f" = {same}" if same > 1 else ""
    told = f"SHA-256 of the pixels {sha256}" + (f"; {same} cases have this very video" if same > 1 else "")
    return f'<td title="{told}"><code>{sha256[:8]}</code>{equal}</td>'
