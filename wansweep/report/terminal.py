"""The summary as a terminal table."""

from __future__ import annotations

import polars as pl
from rich import box
from rich.table import Column, Table
from rich.text import Text

from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report import choosing
from wansweep.report.cells import known, size
from wansweep.report.text import as_text
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import HOST, memory_measured

COLOURS = {Outcome.OK: "green", Outcome.CRASH: "red", Outcome.TIMEOUT: "red", Outcome.OOM: "yellow", Outcome.INVALID: "yellow"}
_FIGURES = ("total_s", "step_s", "load_s", "vae_decode_s")


def render(results: Results, *, width: int | None = None, colour: bool = False) -> str:
    """One row a case: how it ended, its times and its memory; under them, why the others failed."""
    # Without a GPU the host's memory is what there is.
    memory = HOST if memory_measured(results.summary) == HOST else "peak_allocated_bytes"
    figures = [METRIC[name] for name in (*_FIGURES, memory)]
    # Settings of two presets never stand in one table without their names.
    mixed = results.summary["preset"].n_unique() > 1
    settings = ["Case", *(["Preset"] if mixed else []), "Outcome"]
    numbers = [Column(metric.heading, justify="right") for metric in figures]
    table = Table(*settings, Column("GPUs", justify="right"), "Res", "Offload", *numbers, title=results.sweep.name, box=box.SIMPLE)
    for row in results.summary.iter_rows(named=True):
        outcome = Outcome(row["outcome"]) if row["outcome"] else None
        table.add_row(
            Text(row["label"]),
            *([row["preset"]] if mixed else []),
            Text(str(outcome or "not run yet"), style=COLOURS.get(outcome, "") if outcome else "dim"),
            known(row["gpus"]),
            size(row),
            Text(known(row["offload"])),
            *(metric.show(row[metric.name]) for metric in figures),
        )
    failed = results.summary.filter(pl.col("reason").is_not_null() & (pl.col("reason") != ""))
    reasons = [Text(f"{row['label']}: {row['outcome']}: {row['reason']}") for row in failed.iter_rows(named=True)]
    return as_text(table, *reasons, *map(Text, choosing.lines(results)), width=width, colour=colour)
