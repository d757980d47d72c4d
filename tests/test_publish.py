"""A run folder's rendered files while its sweep runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import cycle, pairwise
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from tests.gpu_runs import gpu_cases, gpu_folder, gpu_records, gpu_sweep
from tests.makers import make_record
from tests.runs import ROOT, wansweep
from wansweep.config import read_request
from wansweep.publish import Publisher, evidence, read_parquet, read_results, write_parquet
from wansweep.record import Outcome
from wansweep.store import create
from wansweep.telemetry.environment import environment

WITHOUT_ALTAIR = """
import pathlib, sys
sys.modules["altair"] = None
from wansweep import publish, store
publish.Publisher(store.open_folder(pathlib.Path(sys.argv[1]))).render()
"""


def test_a_trial_run_again_takes_the_place_of_its_accident_in_the_tables_as_on_disk(tmp_path: Path) -> None:
    sweep = read_request(["+sweep=quick"]).sweep
    case = sweep.cases[0]
    folder = create(tmp_path, sweep, environment())
    Publisher(folder).add(make_record(case, outcome=Outcome.CRASH, reason="its process died"))

    resumed = Publisher(folder)
    resumed.add(replace(make_record(case), started_utc="2026-01-02T00:00:00+00:00"))
    results = resumed.render()

    assert [record.outcome for record in results.records] == [Outcome.OK]
    assert results.summary["outcome"][0] == "ok"
    assert pl.read_parquet(folder.path / "summary.parquet").equals(read_results(folder).summary)


def test_every_trial_leaves_a_page_and_a_time_line_of_what_is_there_so_far(tmp_path: Path) -> None:
    cases = gpu_cases()[:2]
    folder = create(tmp_path, gpu_sweep(cases), environment())
    Publisher(folder).add(gpu_records(cases, repeats=1)[0])
    page = (folder.path / "report.html").read_text()
    assert "1 not run yet" in page
    names = {event["args"].get("name") for event in json.loads((folder.path / "trace.json").read_text())["traceEvents"]}
    assert "ti2v_5b-none #0 (ok) rank 0 on NVIDIA H200" in names


def test_without_what_draws_the_page_everything_else_is_left_and_the_way_out_is_told(tmp_path: Path) -> None:
    cases = gpu_cases()[:2]
    folder = create(tmp_path, gpu_sweep(cases), environment())
    folder.append(gpu_records(cases, repeats=1)[0])
    done = subprocess.run([sys.executable, "-c", WITHOUT_ALTAIR, folder.path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "no report.html here, altair is not installed; render it elsewhere" in done.stderr
    assert not (folder.path / "report.html").exists()
    assert (folder.path / "report.md").exists()
    assert (folder.path / "trace.json").exists()


def test_rendering_takes_a_tenth_of_the_time_at_most_however_fast_trials_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = gpu_cases()
    folder = create(tmp_path, gpu_sweep(cases), environment())
    now_s, rendered_s = [100.0], list[float]()

    def slow(*_: object) -> None:
        rendered_s.append(now_s[0])
        now_s[0] += 5.0

    monkeypatch.setattr("wansweep.publish.write_tables", slow)
    monkeypatch.setattr("wansweep.publish.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    publisher = Publisher(folder)
    for trial in range(120):
        publisher.add(make_record(cases[0], trial=trial))
        now_s[0] += 1.0
    # At the first trial, and then no sooner after the end of one than ten times its length.
    assert [round(later - sooner) for sooner, later in pairwise(rendered_s)] == [55, 55]
    assert publisher.render().summary["n"][0] == 120


def test_a_folder_of_an_older_version_is_gone_on_with(tmp_path: Path) -> None:
    cases = gpu_cases()[:1]
    folder = create(tmp_path, gpu_sweep(cases), environment())
    folder.frames.rmdir()
    publisher = Publisher(folder)
    assert folder.frames.is_dir()
    old = gpu_records(cases, repeats=1)[0]
    publisher.add(replace(old, origin_s=None, ranks=()))
    assert "No samples of memory are kept for this trial" in (folder.path / "report.html").read_text()


def test_the_page_is_made_again_from_the_folder_alone(tmp_path: Path) -> None:
    folder = gpu_folder(tmp_path, gpu_records(gpu_cases()[:2], repeats=1))
    (folder.traces / f"{gpu_cases()[1].id}-0.parquet").write_bytes(b"cut short")
    Publisher(folder).render()
    done = wansweep("report", str(folder.path), "--format", "html", "-o", str(tmp_path / "again.html"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "again.html").read_text() == (folder.path / "report.html").read_text()
    assert "GPU in use" in (tmp_path / "again.html").read_text()


def test_a_table_is_read_whole_while_it_is_replaced(tmp_path: Path) -> None:
    tables = [pl.DataFrame({f"c{column}": [f"{row}" for row in range(rows)] for column in range(20)}) for rows in (3, 40, 500)]
    path, over = tmp_path / "summary.parquet", threading.Event()
    write_parquet(path, tables[0])

    def replace_again_and_again() -> None:
        for table in cycle(tables):
            if over.is_set():
                return
            write_parquet(path, table)

    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    try:
        heights, end_s = [], time.monotonic() + 60
        while len(heights) < 300 or (len(set(heights)) < 2 and time.monotonic() < end_s):  # a busy disk takes its time to write one
            heights.append(read_parquet(path).height)
    finally:
        over.set()
        writer.join()
    assert set(heights) <= {3, 40, 500}
    assert len(set(heights)) > 1, "nothing was replaced meanwhile"


def test_a_trace_that_polars_panics_at_is_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = gpu_cases()[0]
    folder = create(tmp_path, gpu_sweep([case]), environment())
    record = gpu_records([case], repeats=1)[0]
    write_parquet(folder.traces / f"{record.case_id}-{record.trial}.parquet", pl.DataFrame({"t_s": [0.0]}))

    def panic(_: object) -> None:
        raise pl.exceptions.PanicException("assertion failed")

    monkeypatch.setattr(pl, "read_parquet", panic)
    assert evidence(folder).curves(record) is None
