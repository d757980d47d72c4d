"""The sweeps of levers that ship, whole, on miniatures."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.runs import run_folder, wansweep

SHIPPED = {"offload": (21, {"ok", "invalid"}), "cache": (18, {"ok", "invalid"})}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_sweep_of_levers_runs_whole_on_a_cpu_and_every_case_ends_in_a_row(name: str, tmp_path: Path) -> None:
    count, outcomes = SHIPPED[name]
    ran = wansweep(f"+sweep={name}", "weights=tiny", "procedure.isolation=warm", "cluster.exclusive=false", f"reports={tmp_path}")
    assert ran.returncode == 0, ran.stderr
    table = pl.read_parquet(run_folder(ran).path / "summary.parquet")
    assert table.height == count
    assert set(table["outcome"]) == outcomes
    assert table.filter(pl.col("outcome") == "invalid")["reason"].str.len_chars().min() > 20
