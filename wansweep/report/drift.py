"""Drift in the reports: the table of report.md, and how a case's drift is told in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wansweep.lossy import lossy_levers
from wansweep.metrics import METRIC
from wansweep.report.cells import cell, table
from wansweep.tables.drift import IDENTICAL, REFERENCE
from wansweep.tables.results import Results

Row = Mapping[str, Any]
_HEADINGS = ("Case", "Lossy", "Against", "n", "PSNR(dB)", "SSIM", "FLIP", "Latent error", "SSIM floor", "Latent error floor")
READING = (
    "Each case's video against its lossless twin's at the same seed, median over n trials: PSNR and SSIM of six frames, FLIP (what somebody "
    "sees who alternates between the two; 0 is nothing), and the relative error of the final latents. "
    "The floor is how far the twin's own repeats "
    "are apart: what is not beyond it may be chance. A PSNR of `identical` is infinite."
)


def section(results: Results) -> str:
    """The table with its reading; empty for a run without lossy cases."""
    lossy = {case.id: lossy_levers(case) for case in results.sweep.cases}
    rows = [row for row in results.summary.iter_rows(named=True) if row["drift_n"] or lossy[row["case_id"]]]
    if not any(lossy.values()) or not rows:
        return ""
    cells = [_cells(row, lossy[row["case_id"]]) for row in rows]
    whys = [f"- {cell(row['label'])}: {cell(row['drift_why'])}" for row in rows if row["drift_why"] not in (None, REFERENCE)]
    below = ["Not measured:\n\n" + "\n".join(whys)] if whys else []
    return "\n\n".join(["# Drift", READING, table(_HEADINGS, cells, numeric_from=3), *below])


def psnr(row: Row) -> str:
    """PSNR without its unit; ``identical`` for frames that are equal to the bit."""
    return IDENTICAL if row["psnr_db_why"] == IDENTICAL else METRIC["psnr_db"].show(row["psnr_db"])


def told(row: Row) -> str:
    """A case's drift on one line; empty where none was measured."""
    if not row["drift_n"]:
        return ""
    figures = "identical frames" if row["psnr_db_why"] == IDENTICAL else f"SSIM {METRIC['ssim'].show(row['ssim'])}, PSNR {psnr(row)} dB"
    flip = f", FLIP {METRIC['flip'].show(row['flip'])}" if row["psnr_db_why"] != IDENTICAL else ""
    floor = row["latent_error_floor"]
    beside = f" (floor {METRIC['latent_error'].show(floor)})" if floor is not None else " (floor not measured)"
    return f"{figures}{flip}, latent error {METRIC['latent_error'].show(row['latent_error'])}{beside}, against {row['drift_against']}"


def _cells(row: Row, lossy: Sequence[str]) -> list[str]:
    return [
        row["label"],
        ", ".join(lossy) or "none",
        row["drift_against"] or "no twin",
        str(row["drift_n"]),
        psnr(row),
        *(METRIC[name].show(row[name]) for name in ("ssim", "flip", "latent_error", "ssim_floor", "latent_error_floor")),
    ]
