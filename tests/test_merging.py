"""Several runs read as one, and as a data set to publish."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import wansweep
from tests.conftest import make_case
from tests.makers import make_record, make_stages, on_gpu
from tests.runs import wansweep as run_wansweep
from wansweep.bundle import export, published
from wansweep.config import read_request
from wansweep.errors import StoreError
from wansweep.levers import Offload
from wansweep.merging import merge
from wansweep.publish import Publisher, evidence, read_results
from wansweep.record import Record, from_json
from wansweep.store import RunFolder, create
from wansweep.telemetry.environment import Environment, environment

PLAIN = make_case(label="plain")
OFFLOADED = make_case(label="offloaded", offload=Offload.MODEL)
QUICK = read_request(["+sweep=quick"]).sweep
HERE = environment()


def trial(record: Record, *, step_s: float, gpu: str = "NVIDIA H200") -> Record:
    return on_gpu(replace(record, stages=make_stages(record.case, step_s=step_s)), gpu)


def a_run(path: Path, *records: Record, under: Environment = HERE, command: str = "wansweep +sweep=quick") -> Path:
    cases = tuple({record.case_id: record.case for record in records}.values())
    folder = create(path, replace(QUICK, cases=cases, command=command), under)
    publisher = Publisher(folder)
    for record in records:
        publisher.add(record)
    return folder.path


@pytest.fixture(scope="module")
def monday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [trial(make_record(PLAIN, trial=n), step_s=1.0 + n) for n in range(2)]
    folder = a_run(tmp_path_factory.mktemp("monday"), *records)
    (folder / "frames" / f"{PLAIN.id}-1.jpg").write_bytes(b"monday's second")
    return folder


@pytest.fixture(scope="module")
def tuesday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [trial(make_record(PLAIN), step_s=9.0), trial(make_record(OFFLOADED), step_s=3.0)]
    folder = a_run(tmp_path_factory.mktemp("tuesday"), *records, command="wansweep +sweep=offload")
    (folder / "frames" / f"{PLAIN.id}-0.jpg").write_bytes(b"tuesday's first")
    return folder


def test_trials_of_a_case_that_ran_on_two_days_are_counted_together(monday: Path, tuesday: Path, tmp_path: Path) -> None:
    merged = merge([monday, tuesday], tmp_path / "both")
    results = read_results(merged)
    rows = {row["label"]: row for row in results.summary.iter_rows(named=True)}
    assert (rows["plain"]["n"], rows["offloaded"]["n"]) == (3, 1)
    assert rows["plain"]["step_s"] == 2.0  # of 1, 2 and 9
    days = sorted(name for name in rows["plain"]["merged_from"].split(", "))
    assert len(days) == 2
    assert rows["offloaded"]["merged_from"] in days
    assert sorted((record.trial, record.run) for record in results.records if record.case_id == PLAIN.id)[2][0] == 2
    assert (merged.frames / f"{PLAIN.id}-1.jpg").read_bytes() == b"monday's second"
    assert (merged.frames / f"{PLAIN.id}-2.jpg").read_bytes() == b"tuesday's first"
    assert results.sweep.command_for("offloaded") == f"wansweep +sweep=offload 'sweep.only=[{rows['offloaded']['case_id']}]'"
    assert (merged.path / "report.html").is_file()


def test_runs_of_different_environments_are_never_folded_into_one(monday: Path, tmp_path: Path) -> None:
    older = replace(HERE, packages={**HERE.packages, "torch": "2.12.0"})
    other = a_run(tmp_path / "older", trial(make_record(PLAIN), step_s=1.0), under=older)
    with pytest.raises(StoreError, match=r"torch \S+ -> 2\.12\.0.*would share a median.*wansweep export"):
        merge([monday, other], tmp_path / "both")
    card = a_run(tmp_path / "card", trial(make_record(PLAIN), step_s=1.0, gpu="NVIDIA L40S"))
    with pytest.raises(StoreError, match="device NVIDIA H200 -> NVIDIA L40S"):
        merge([monday, card], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    with pytest.raises(StoreError, match="named twice"):
        merge([monday, monday], tmp_path / "both")


def test_runs_of_any_environment_stand_side_by_side(monday: Path, tuesday: Path, tmp_path: Path) -> None:
    card = a_run(tmp_path / "card", trial(make_record(PLAIN), step_s=1.0, gpu="NVIDIA L40S"))
    runs = wansweep.load([monday, tuesday, card])
    plain = runs.summary.filter(pl.col("case_id") == PLAIN.id)
    assert plain["run"].n_unique() == 3
    assert plain["step_s"].to_list() == [1.5, 9.0, 1.0]
    ids = plain["environment_id"].to_list()
    assert ids[0] == ids[1] != ids[2]
    assert set(runs.stages["run"]) == set(runs.summary["run"])


def test_what_is_exported_opens_in_duckdb_and_datasets(monday: Path, tuesday: Path, tmp_path: Path) -> None:
    target = tmp_path / "published"
    done = run_wansweep("export", str(monday), str(tuesday), "-o", str(target))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(target)), done.stderr
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(f"SELECT run, label, step_s FROM '{target}/data/summary.parquet' ORDER BY step_s").fetchall()
    assert [(label, step_s) for _, label, step_s in rows] == [("plain", 1.5), ("offloaded", 3.0), ("plain", 9.0)]
    datasets = pytest.importorskip("datasets")
    for name, height in {"summary": 3, "records": 4, "environments": 2}.items():
        opened = datasets.load_dataset(str(target), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert opened.num_rows == height, name
    record = json.loads(opened_record := pl.read_parquet(target / "data" / "records.parquet")["record"][0])
    assert from_json(opened_record).case_id == PLAIN.id
    schema = json.loads((target / "record.schema.json").read_bytes())
    assert set(record) <= set(schema["properties"])
    assert "  data_files: data/summary.parquet\n  default: true" in (target / "README.md").read_text()


def test_what_is_exported_names_no_host_no_path_and_no_token(tmp_path: Path) -> None:
    told = trial(make_record(PLAIN, reason="no /home/alice/weights/wan: hf_abcdefghijkl"), step_s=1.0)
    assert told.resolved
    told = replace(
        told,
        log_tail=("secret words",),
        node="alices-box",
        nodes=("alices-box",),
        resolved=replace(told.resolved, converted="/scratch/alice/cache/converted/x", weights="/data/alice/wan22"),
    )
    folder = a_run(tmp_path / "run", told, command="wansweep +sweep=quick weights=/data/alice/wan22 reports=/mnt/alice/reports")
    export([folder], tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    for file in (tmp_path / "out" / "data").glob("*.parquet"):
        text += json.dumps(pl.read_parquet(file).to_dicts(), default=str)
    assert not [word for word in ("alice", "secret words", "hf_abc", str(tmp_path)) if word in text]
    assert "weights=wan22" in text
    assert published("12.5 TFLOP/s and/or https://example.org/a/b/c") == "12.5 TFLOP/s and/or https://example.org/a/b/c"


def test_merging_what_was_merged_keeps_where_a_trial_ran_first(monday: Path, tuesday: Path, tmp_path: Path) -> None:
    both = merge([monday, tuesday], tmp_path / "both")
    card: RunFolder = RunFolder(path=a_run(tmp_path / "third", trial(make_record(OFFLOADED), step_s=4.0)))
    all_three = read_results(merge([both.path, card.path], tmp_path / "three"))
    assert len({record.run for record in all_three.records}) == 3
    assert all_three.summary.filter(pl.col("case_id") == OFFLOADED.id)["n"].to_list() == [2]


def test_a_link_in_a_run_folder_from_elsewhere_takes_no_file_of_the_readers_along(monday: Path, tuesday: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"not for the report")
    folder = RunFolder(path=Path(shutil.copytree(monday, tmp_path / "theirs")))
    sheet, samples = folder.frames / f"{PLAIN.id}-1.jpg", folder.traces / f"{PLAIN.id}-1.parquet"
    sheet.unlink()
    for link in (sheet, samples):
        link.symlink_to(mine)
    assert [evidence(folder).sheets(record) for record in folder.read()[0]] == [None, None]
    made = merge([folder.path, tuesday], tmp_path / "both")
    assert not [file for file in made.path.rglob("*") if file.is_file() and b"not for the report" in file.read_bytes()]


def test_a_damaged_distance_in_a_run_folder_is_no_reason_not_to_merge(monday: Path, tuesday: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(monday, tmp_path / "damaged"))
    (folder / "drift").mkdir(exist_ok=True)
    (folder / "drift" / f"{PLAIN.id}-1.json").write_text("{")
    assert len(merge([folder, tuesday], tmp_path / "both").read()[0]) == 4
