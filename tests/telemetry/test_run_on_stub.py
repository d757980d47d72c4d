"""A whole sweep on a machine whose driver shows GPUs: what Ray counts, what trials reserve, and what the run folder says of the cards."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest

from tests.runs import run_folder, wansweep
from tests.schedule.conftest import processes_of
from tests.schedule.stub import records_in, started
from wansweep.record import Outcome, from_json
from wansweep.units import GIB

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


def sampled(pid: int) -> bool:
    """Whether a sampler runs below the process: the trial's GPUs have been looked at by then."""
    for process in processes_of(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "wansweep.telemetry.sampler" in process.cmdline():
                return True
    return False


def test_a_trial_on_a_gpu_that_is_not_clean_says_so_and_ends_nobody_elses_process(
    nvml_stub: Callable[..., NvmlStub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = nvml_stub()
    for name, value in {**stub.env, "STUB_GPU_UUID": stub.uuid()}.items():
        monkeypatch.setenv(name, value)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as foreign:
        stub.set(0, processes=1, process_pid=foreign.pid, process_bytes=3 * GIB, mem_used=3 * GIB)
        with started([("case", 1, f"hold 0 {tmp_path / 'go'}")], cluster={"gpus": 1}) as sweep:
            deadline_s = time.monotonic() + 120
            while not sampled(sweep.pid):
                assert sweep.poll() is None, sweep.communicate()
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            stub.set(0, processes=2, mem_used=5 * GIB)  # another comes, and stays
            (tmp_path / "go").touch()
            out, err = sweep.communicate(timeout=200)
        (record,) = map(from_json, records_in(out))
        assert foreign.poll() is None, err
        foreign.kill()
    assert record.outcome is Outcome.OK
    assert record.device_notes == (
        f"{stub.uuid()}: pid {foreign.pid} was there before the trial and holds 3.00 GiB",
        f"{stub.uuid()}: pid {foreign.pid + 1} is there after it and holds 3.00 GiB",
        f"{stub.uuid()}: 2.00 GiB more in use after the trial than before it",
    )
