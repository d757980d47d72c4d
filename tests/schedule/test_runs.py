"""Sweeps from the command line to the report, on Ray Tune, and the accidents that must not lose anything."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import DATA
from tests.runs import ROOT, command, masked, run_folder, wansweep
from tests.schedule.conftest import processes_of, ranks
from wansweep.publish import read_results
from wansweep.store import RunFolder
from wansweep.tables.frames import STAGES_SCHEMA, SUMMARY_SCHEMA

QUICK_LABELS = ["ti2v_5b", "ti2v_5b_image", "t2v_a14b", "i2v_a14b", "t2v_a14b_2gpus"]
LADDER = ["model", "group_block", "group_leaf", "sequential"]


CONF = ROOT / "tests" / "conf"


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep in the background; ended with the ``with``, also by a failing test."""
    with subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sweep:
        try:
            yield sweep
        finally:
            sweep.kill()


def read_until(sweep: subprocess.Popen[str], text: str) -> None:
    """Wait for a line of progress."""
    assert sweep.stderr is not None
    assert any(text in line for line in sweep.stderr), f"ended without {text!r}"


def wait_for(what: Callable[[], object], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The quick sweep, as `make quick` runs it: its own cluster, a fresh process a trial."""
    return wansweep("+sweep=quick", f"reports={tmp_path_factory.mktemp('reports')}")


def test_the_quick_sweep_ends_well_and_its_last_line_is_its_folder(quick: subprocess.CompletedProcess[str]) -> None:
    assert quick.returncode == 0, quick.stderr
    folder = run_folder(quick)
    assert folder.report.is_file()
    assert {
        "sweep.yaml",
        "plan.json",
        "environment.json",
        "records",
        "summary.csv",
        "summary.parquet",
        "stages.parquet",
        "report.md",
        "report.html",
        "trace.json",
        "frames",
        "videos",
        "traces",
    } == {path.name for path in folder.path.iterdir()}


def test_the_quick_sweep_runs_the_three_families_the_ladder_and_a_gang(quick: subprocess.CompletedProcess[str]) -> None:
    summary = pl.read_parquet(run_folder(quick).path / "summary.parquet")
    assert SUMMARY_SCHEMA.items() <= dict(summary.schema).items()
    assert summary.schema == read_results(run_folder(quick)).summary.schema
    assert summary["label"].to_list() == QUICK_LABELS + [f"t2v_a14b-1280x720x81-s4-{mode}" for mode in LADDER]
    assert dict(summary.group_by("outcome").len().iter_rows()) == {"ok": 8, "invalid": 1}
    gang = summary.filter(pl.col("label") == "t2v_a14b_2gpus").row(0, named=True)
    assert (gang["gpus"], gang["parallel"]) == (2, "ulysses2")
    refused = summary.filter(pl.col("outcome") == "invalid").row(0, named=True)
    assert (refused["offload"], refused["reason"]) == (
        "sequential",
        "Model_Initialization: offload=sequential on cpu: `enable_sequential_cpu_offload` requires accelerator, but not found",
    )


def test_every_rank_of_a_gang_leaves_its_stages(quick: subprocess.CompletedProcess[str]) -> None:
    stages = pl.read_parquet(run_folder(quick).path / "stages.parquet")
    assert stages.schema == pl.Schema(STAGES_SCHEMA)
    gang = stages.filter(pl.col("label") == "t2v_a14b_2gpus")
    per_rank = gang.filter(pl.col("stage") != "Save").group_by("rank").len().sort("rank")
    assert per_rank["len"].to_list() == [13, 13]
    assert gang.filter(pl.col("stage") == "Save")["rank"].to_list() == [0]
    # One clock: both ranks are in step, because each step is a collective.
    begins = gang.filter(pl.col("stage") == "Step_3_Inference")["start_s"]
    assert abs(begins[0] - begins[1]) < 1.0


def test_a_gang_of_two_computes_what_one_process_does(quick: subprocess.CompletedProcess[str]) -> None:
    records, _ = run_folder(quick).read()
    hashes = {record.label: record.resolved.latents_sha256 for record in records if record.resolved}
    # The offload modes move weights and change nothing; two ranks sum in another order and may differ in the last bits.
    assert len({hashes[f"t2v_a14b-1280x720x81-s4-{mode}"] for mode in LADDER[:-1]} | {hashes["t2v_a14b"]}) == 1


def test_the_whole_report_is_as_it_was(quick: subprocess.CompletedProcess[str]) -> None:
    """Snapshot from conf to report.md, figures masked."""
    golden = DATA / "quick_report.md"
    found = masked(run_folder(quick).report.read_text())
    assert found == golden.read_text()


def test_report_renders_the_folder_again_from_the_folder_alone(quick: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    folder = run_folder(quick)
    out = tmp_path / "again.md"
    done = wansweep("report", str(folder.path), "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert out.read_text() == folder.report.read_text()
    shown = wansweep("report", str(folder.path), "--format", "terminal").stdout
    assert all(label in shown for label in QUICK_LABELS)


def test_without_a_terminal_progress_is_plain_lines(quick: subprocess.CompletedProcess[str]) -> None:
    assert "\x1b[" not in quick.stderr
    assert "[9/9]" in quick.stderr
    assert "dashboard http://127.0.0.1:" in quick.stderr


def test_a_run_that_is_resumed_when_all_is_done_runs_nothing(quick: subprocess.CompletedProcess[str]) -> None:
    folder = run_folder(quick)
    before = {path.name: path.stat().st_mtime_ns for path in folder.records.iterdir()}
    done = wansweep("run", "+sweep=quick", f"resume={folder.path}")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(folder.path))
    assert {path.name: path.stat().st_mtime_ns for path in folder.records.iterdir()} == before


def test_a_folder_made_for_other_cases_is_not_resumed(quick: subprocess.CompletedProcess[str]) -> None:
    done = wansweep("run", "+sweep=seed", "weights=tiny", f"resume={run_folder(quick).path}")
    assert done.returncode == 2
    assert "made for other cases (16 differ" in done.stderr


def test_the_seven_seed_cases_leave_seven_rows_on_a_cluster_that_was_there(ray_address: str, tmp_path: Path) -> None:
    overrides = ["weights=tiny", "procedure.isolation=warm", "cluster=auto", "cluster.exclusive=false", f"reports={tmp_path}"]
    done = wansweep("+sweep=seed", *overrides, RAY_ADDRESS=ray_address)
    assert "Ray joined: 2 CPUs, no GPU" in done.stderr
    assert done.returncode == 0, done.stderr
    summary = pl.read_csv(run_folder(done).path / "summary.csv")
    assert summary.height == 7
    assert set(summary["outcome"]) == {"ok"}
    assert summary["steps"].to_list() == [5, 5, 10, 10, 10, 10, 5]
    records, _ = run_folder(done).read()
    assert sum(record.warm for record in records) >= 4
    # Equal settings under two names: the same seed gives the same latents, also in a process that ran another case before.
    hashes = {record.label: record.resolved.latents_sha256 for record in records if record.resolved}
    assert hashes["01_5B_Speed_Preview_704p"] == hashes["01_Speed_Preview_480p"]
    assert hashes["02_5B_Efficiency_Mode_704p"] == hashes["03_5B_Performance_Mode_704p"] == hashes["03_Performance_Mode_720p"]
    swap = next(record for record in records if record.label == "04_14B_Speed_Preview_480p").resolved
    assert swap is not None
    assert swap.switch_step == 4  # as in the report: the swap stands before step 4 of 5


def test_with_gpus_trials_reserve_them_and_one_that_no_node_can_hold_is_invalid(tmp_path: Path) -> None:
    only = "sweep.only=[ti2v_5b,t2v_a14b_2gpus]"
    done = wansweep("+sweep=quick", only, "cluster.gpus=1", "procedure.repeats=3", "procedure.isolation=warm", f"reports={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "Ray started: 1 GPU;" in done.stderr
    folder = run_folder(done)
    summary = {row["label"]: row for row in pl.read_parquet(folder.path / "summary.parquet").iter_rows(named=True)}
    refused, ran = summary["t2v_a14b_2gpus"], summary["ti2v_5b"]
    assert (refused["outcome"], refused["reason"]) == ("invalid", "needs 2 GPUs on one node; the largest node has 1")
    # Three repeats, the first in a cold process: the two warm ones are the figures, and the cold one is kept and told.
    assert (ran["outcome"], ran["n"], ran["left_out"], ran["stable"]) == ("ok", 2, 1, "insufficient")
    stages = pl.read_parquet(folder.path / "stages.parquet").filter(pl.col("label") == "ti2v_5b")
    assert sorted(stages["trial"].unique()) == [0, 1, 2]
    assert stages["sm_active_pct"].null_count() == stages.height
    assert set(stages["sm_active_pct_why"]) == {"unsupported"}
    traces = [pl.read_parquet(path) for path in (folder.path / "traces").glob("*.parquet")]
    assert len(traces) == 3
    assert {"host_rss_bytes", "sampler_tick_s"} <= set(traces[0]["metric"])


def test_a_killed_rank_and_a_late_trial_are_outcomes_and_the_sweep_goes_on(ray_address: str, tmp_path: Path) -> None:
    overrides = ["+sweep=accidents", "--config-dir", str(CONF), f"cluster.address={ray_address}", f"reports={tmp_path}"]
    with started(*overrides) as sweep:
        read_until(sweep, "killed: starting")
        wait_for(ranks)
        wait_for(lambda: any("Step_" in board.read_text() for board in tmp_path.glob("accidents/*/live.json")))  # into its steps
        for rank in ranks():
            rank.send_signal(signal.SIGKILL)
        out, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 1, err
    records = {record.label: record for record in RunFolder(path=Path(out.splitlines()[-1])).read()[0]}
    assert {label: str(record.outcome) for label, record in records.items()} == {"killed": "crash", "late": "timeout", "fine": "ok"}
    assert "its process died" in records["killed"].reason
    assert "procedure.timeout_s=45" in records["late"].reason
    assert records["late"].reason.startswith("Step_")
    # Its row's command, pasted, runs that case and no other.
    report = (Path(out.splitlines()[-1]) / "report.md").read_text()
    line = re.search(r"^- \*\*Run it again\*\*: `(.*sweep\.only=\S*fine\S*)`$", report, re.MULTILINE)
    assert line
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    pasted = subprocess.run(
        ["bash", "-c", line[1]], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "PATH": path}
    )
    assert pasted.returncode == 0, pasted.stderr
    assert [record.label for record in run_folder(pasted).read()[0]] == ["fine"]
    finished = [stage.name for stage in records["late"].stages if stage.duration_s is not None]
    assert finished[:3] == ["Model_Initialization", "T5_Encoding", "TI2V_Preprocess"]
    wait_for(lambda: not ranks())


def test_a_driver_killed_half_way_leaves_a_report_of_what_was_finished_and_can_be_resumed(ray_address: str, tmp_path: Path) -> None:
    overrides = ["+sweep=four", "--config-dir", str(CONF), f"reports={tmp_path}", "procedure.isolation=warm"]
    with started(*overrides) as sweep:
        wait_for(lambda: len(list(tmp_path.glob("four/*/records/*.json"))) >= 2)
        family = processes_of(sweep.pid)
        sweep.kill()
        sweep.wait()
    (path,) = tmp_path.glob("four/*")
    records, unreadable = RunFolder(path=path).read()
    assert 2 <= len(records) < 4
    assert not unreadable
    assert "not run yet" in wansweep("report", str(path)).stdout
    assert len(re.findall("^## Case: ", (path / "report.md").read_text(), re.MULTILINE)) == 4
    wait_for(lambda: not [p for p in family if p.is_running() and p.status() != "zombie"], seconds=40)
    done = wansweep("run", *overrides, f"cluster.address={ray_address}", f"resume={path}")
    assert done.returncode == 0, done.stderr
    after, _ = RunFolder(path=path).read()
    assert len(after) == 4
    assert [record for record in after if record in records] == records
    assert pl.read_csv(path / "summary.csv")["outcome"].to_list() == ["ok"] * 4


def test_one_interrupt_lets_running_trials_finish_and_writes_the_report(ray_address: str, tmp_path: Path) -> None:
    overrides = ["+sweep=four", "--config-dir", str(CONF), f"cluster.address={ray_address}", f"reports={tmp_path}", "procedure.isolation=warm"]
    with started(*overrides) as sweep:
        wait_for(lambda: list(tmp_path.glob("four/*/records/*.json")))
        sweep.send_signal(signal.SIGINT)
        out, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 130, err
    summary = pl.read_csv(Path(out.splitlines()[-1]) / "summary.csv")
    assert summary.height == 4
    assert summary["outcome"][0] == "ok"
    assert summary["outcome"].null_count() >= 1


def test_two_interrupts_stop_now_and_lose_nothing_recorded(ray_address: str, tmp_path: Path) -> None:
    overrides = [
        "+sweep=accidents",
        "--config-dir",
        str(CONF),
        f"cluster.address={ray_address}",
        f"reports={tmp_path}",
        "procedure.timeout_s=600",
    ]
    with started(*overrides) as sweep:
        read_until(sweep, "killed: starting")
        wait_for(ranks)
        sweep.send_signal(signal.SIGINT)
        time.sleep(2)
        sweep.send_signal(signal.SIGINT)
        out, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 130, err
    assert "Traceback" not in err
    assert pl.read_csv(Path(out.splitlines()[-1]) / "summary.csv").height == 3
    wait_for(lambda: not ranks())
