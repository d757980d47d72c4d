"""Aggregation at scale: ten million stage rows to the summary and the report's stage tables, by wansweep (lazy Polars) and by pandas.

What is timed begins with stage rows in Parquet files and ends with the tables in memory. Reading the records that such rows come from is
not in it. A report breaks down `markdown.BREAKDOWNS` cases; beside that, every case's stage table is made. Each run is a process of its own,
the two sides in turn.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from benchmarks import stage_rows

ROWS = 10_000_000
SAMPLE = 200_000
RUNS = 3
TARGET_S, TARGET_BYTES, TARGET_TIMES = 10.0, 2e9, 5.0
SIDES = ("polars", "pandas")
# What both sides make.
_PARTS = {
    "figures": "a row of figures a case",
    "shown": "stage tables of the cases that a report breaks down",
    "typical": "every case's stage table",
}
# Floats are added up in another order on either side, and ours are rounded to 6 decimals.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-6

Run = Mapping[str, float]


def run(rows: int = ROWS) -> None:
    """Print seconds, peak memory and their ratios; on a sample and at full size the two sides' tables are held against each other."""
    if importlib.util.find_spec("pandas") is None or importlib.util.find_spec("pyarrow") is None:
        print("skipped: pandas and pyarrow are not installed (they come with ray[tune])")
        return
    with tempfile.TemporaryDirectory(prefix="wansweep-scale-") as scratch:
        folder = Path(scratch)
        for count in sorted({min(SAMPLE, rows), rows}):
            stage_rows.write(folder, rows=count)
            runs: dict[str, list[Run]] = {side: [] for side in SIDES}
            for _ in range(RUNS if count == rows else 1):
                for side in SIDES:
                    runs[side].append(_run(side, folder))
            print(_compared(folder))
        _told(runs, rows)


def _run(side: str, folder: Path) -> Run:
    command = [sys.executable, "-m", f"benchmarks.scale_{side}", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return found


def _compared(folder: Path) -> str:
    """That both sides have the same figures.

    Raises:
        AssertionError: They have not.
    """
    counts = []
    for table, key in (("summary", ["case_id"]), ("typical", ["case_id", "stage"])):
        ours, theirs = (pl.read_parquet(folder / f"{side}-{table}.parquet").sort(key) for side in SIDES)
        names = [name for name in theirs.columns if name not in key]
        assert ours.select(key).equals(theirs.select(key)), f"{table}: other rows"
        for name in names:
            differ = (ours[name] - theirs[name]).abs() > _ABSOLUTE + _RELATIVE * theirs[name].abs()
            assert not differ.any(), f"{table}: {name} differs in {differ.sum()} rows"
            assert ours[name].is_null().equals(theirs[name].is_null()), f"{table}: {name} is missing in other rows"
        counts.append(f"{len(names)} figures of {ours.height:,} rows of the {table}")
    return f"  equal on both sides: {' and '.join(counts)}"


def _told(runs: Mapping[str, Sequence[Run]], rows: int) -> None:
    trials = rows // stage_rows.ROWS_A_TRIAL
    ours, theirs = ({name: statistics.median(run[name] for run in runs[side]) for name in runs[side][0]} for side in SIDES)
    print(f"{rows:,} stage rows of {trials:,} trials, medians of {RUNS} interleaved runs, wansweep against pandas:")
    for name, told in _PARTS.items():
        seconds, cpu = (f"{one[f'{name}_s']:.2f} s ({one[f'{name}_cpu_s']:.2f} of CPU)" for one in (ours, theirs))
        print(f"  {told}: {seconds} against {cpu}, {_times(runs, name):.1f} times")
    print(f"  whole summary, with settings, outcomes and verdicts, which pandas is not asked for: {ours['summary_s']:.2f} s")
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(f"  peak of summary and report: {ours['peak_bytes'] / 1e9:.2f} GB against {theirs['peak_bytes'] / 1e9:.2f} (load a core {load:.1f})")
    print(f"  peak with every case's stage table: {ours['peak_of_all_bytes'] / 1e9:.2f} GB against {theirs['peak_of_all_bytes'] / 1e9:.2f}")
    seconds, times = ours["summary_s"] + ours["shown_s"], _times(runs, "figures", "shown")
    print(f"  summary and report tables: {seconds:.2f} s; their figures, the same on both sides: {times:.1f} times faster than pandas")
    met = seconds < TARGET_S, ours["peak_bytes"] < TARGET_BYTES, times >= TARGET_TIMES
    asked = f"under {TARGET_S:g} s", f"under {TARGET_BYTES / 1e9:g} GB", f"at least {TARGET_TIMES:g} times faster than pandas"
    print("  targets: " + ", ".join(f"{what} {'met' if is_met else 'MISSED'}" for what, is_met in zip(asked, met, strict=True)))


def _times(runs: Mapping[str, Sequence[Run]], *parts: str) -> float:
    """By how much pandas takes longer for those parts, the median of the pairs."""
    ours, theirs = ([sum(run[f"{part}_s"] for part in parts) for run in runs[side]] for side in SIDES)
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
