"""Many trials that do nothing, through the real driver, Ray and store, as `make bench` has them by the thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from tests.runs import ROOT

CASES = 40


def test_a_sweep_of_many_cases_leaves_a_row_each_and_a_driver_that_has_not_grown(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.load", str(tmp_path), str(CASES), "warm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    [folder] = (tmp_path / "load").iterdir()
    summary = pl.read_parquet(folder / "summary.parquet")
    assert summary["label"].to_list() == [f"case_{n}" for n in range(CASES)]
    assert set(summary["outcome"]) == {"ok"}
    assert len(list((folder / "records").iterdir())) == CASES
    tenth, *_, end = found["marks"]
    assert (tenth["done"], end["done"]) == (CASES // 10, CASES)
    assert end["rss_bytes"] < 1.1 * tenth["rss_bytes"]
    assert end["handles"] <= tenth["handles"] + 10
    # Of a record and a trace each: nothing else in the run folder grows.
    assert end["run_files"] - tenth["run_files"] <= 2 * (CASES - CASES // 10) + 10
    assert found["end"]["renders"] < CASES / 3
