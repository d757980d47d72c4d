"""The sweeps of levers that ship, whole, on miniatures."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.runs import run_folder, wansweep

# Rows, outcomes, and what keeps it short: a cache skips nothing in few steps.
SHIPPED = {"offload": (21, {"ok", "invalid"}, ("base.steps=4",)), "cache": (9, {"ok", "invalid"}, ("base.steps=12", "model=t2v_a14b"))}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_sweep_of_levers_runs_whole_on_a_cpu_and_every_case_ends_in_a_row(name: str, ray_address: str, tmp_path: Path) -> None:
    count, outcomes, short = SHIPPED[name]
    small = ("weights=tiny", *short, "procedure.isolation=warm", "cluster.exclusive=false", f"cluster.address={ray_address}")
    ran = wansweep(f"+sweep={name}", *small, f"reports={tmp_path}")
    assert ran.returncode == 0, ran.stderr
    table = pl.read_parquet(run_folder(ran).path / "summary.parquet")
    assert table.height == count
    assert set(table["outcome"]) == outcomes
    assert table.filter(pl.col("outcome") == "invalid")["reason"].str.len_chars().min() > 20


def test_a_sample_of_official_and_mlperf_runs_as_groups_of_one_sweep(ray_address: str, tmp_path: Path) -> None:
    wanted = [
        "official-i2v_a14b-832x480x81-s2-ulysses1-model-fsdpFalse-i2v",
        "official-ti2v_5b-1280x704x121-s2-ulysses1-model-fsdpFalse-i2v",
        "mlperf-t2v_a14b-1280x720x81-s2-ulysses1",
    ]
    ran = wansweep(
        *("+sweep=full", "sweep.groups=[official,mlperf]", f"sweep.only=[{','.join(wanted)}]", "base.steps=2", "weights=tiny"),
        *("procedure.isolation=warm", "cluster.exclusive=false", f"cluster.address={ray_address}", f"reports={tmp_path}"),
    )
    assert ran.returncode == 0, ran.stderr
    folder = run_folder(ran)
    table = pl.read_parquet(folder.path / "summary.parquet")
    assert dict(zip(table["label"], table["outcome"], strict=True)) == dict.fromkeys(wanted, "ok")
    assert set(table["preset"]) == {"custom"}  # two steps are nobody's settings
    assert [case.label for case in folder.sweep().cases] == wanted
