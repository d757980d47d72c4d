"""The summary as a terminal table."""

from __future__ import annotations

import polars as pl
from rich.text import Text

from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report import choosing
from wansweep.report.cells import known, size
from wansweep.report.text import Shown, as_text, fitted
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import HOST, memory_measured

COLOURS = {Outcome.OK: "green", Outcome.CRASH: "red", Outcome.TIMEOUT: "red", Outcome.OOM: "yellow", Outcome.INVALID: "yellow"}
# What goes first where there is no room.
_FIGURES = {"total_s": 0, "step_s": 1, "load_s": 5, "vae_decode_s": 6}


def render(results: Results, *, width: int | None = None, colour: bool = False) -> str:
    """One row a case: how it ended, its times and its memory; under them, why the others failed."""
    # Without a GPU the host's memory is what there is.
    memory = HOST if memory_measured(results.summary) == HOST else "peak_allocated_bytes"
    # Settings of two presets never stand in one table without their names.
    mixed = results.summary["preset"].n_unique() > 1
    rows = results.summary.to_dicts()
    columns = [
        Shown(heading="Case", cells=[Text(row["label"]) for row in rows]),
        *([Shown(heading="Preset", cells=[row["preset"] for row in rows])] if mixed else []),
        Shown(heading="Outcome", cells=[_outcome(row["outcome"]) for row in rows]),
        Shown(heading="GPUs", cells=[known(row["gpus"]) for row in rows], number=True, spare=2),
        Shown(heading="Res", cells=[size(row) for row in rows], spare=4),
        Shown(heading="Offload", cells=[Text(known(row["offload"])) for row in rows], spare=3),
    ]
    columns += [
        Shown(heading=METRIC[name].heading, cells=[METRIC[name].show(row[name]) for row in rows], number=True, spare=spare)
        for name, spare in {**_FIGURES, memory: 0}.items()
    ]
    table = fitted(columns, width=width, title=results.sweep.name)
    failed = results.summary.filter(pl.col("reason").is_not_null() & (pl.col("reason") != ""))
    reasons = [Text(f"{row['label']}: {row['outcome']}: {row['reason']}") for row in failed.iter_rows(named=True)]
    return as_text(table, *reasons, *map(Text, choosing.lines(results)), width=width, colour=colour)


def _outcome(text: str | None) -> Text:
    outcome = Outcome(text) if text else None
    return Text(str(outcome or "not run yet"), style=COLOURS.get(outcome, "") if outcome else "dim")
