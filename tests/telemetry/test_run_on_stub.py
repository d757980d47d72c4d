"""A whole sweep on a machine whose driver shows GPUs: what Ray counts, what trials reserve, and what the run folder says of the cards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from tests.runs import run_folder, wansweep

from .nvml_stub import NvmlStub


def test_trials_reserve_the_gpus_that_the_driver_shows_and_the_run_folder_names_them(
    nvml_stub: Callable[..., NvmlStub], tmp_path: Path
) -> None:
    stub = nvml_stub(gpus=3)
    done = wansweep("+sweep=quick", "sweep.only=[t2v_a14b_2gpus]", f"reports={tmp_path}", **stub.env)
    assert done.returncode == 0, done.stderr
    assert "Ray started: 3 GPUs;" in done.stderr
    folder = run_folder(done)
    assert [gpu.uuid for gpu in folder.environment().gpus] == [stub.uuid(0), stub.uuid(1), stub.uuid(2)]
    assert pl.read_parquet(folder.path / "summary.parquet")["outcome"].to_list() == ["ok"]
    assert "- **GPUs**: none" not in folder.report.read_text()
