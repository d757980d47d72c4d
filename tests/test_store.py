"""The run folder: durable, append-only, and readable whatever is in it."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

from tests.conftest import make_case
from tests.makers import make_record
from wansweep.config import read_request
from wansweep.errors import StoreError
from wansweep.record import SCHEMA, Outcome, Record, from_json, to_json
from wansweep.store import create, open_folder
from wansweep.telemetry.environment import environment


@pytest.fixture
def folder(tmp_path: Path):
    return create(tmp_path, read_request(["+sweep=quick"]).sweep, environment())


def test_a_record_survives_its_json() -> None:
    record = make_record(make_case())
    assert from_json(to_json(record)) == record


def test_a_record_of_before_output_hashes_and_origins_is_read() -> None:
    record = make_record(make_case())
    document = json.loads(to_json(record))
    del document["origin_s"], document["resolved"]["output_sha256"]
    assert from_json(json.dumps(document)) == record


def test_the_sweep_in_a_folder_is_the_sweep_that_was_asked_for(folder) -> None:
    assert folder.sweep() == read_request(["+sweep=quick"]).sweep
    assert open_folder(folder.path) == folder


def test_two_folders_made_in_one_second_are_two(tmp_path: Path) -> None:
    sweep = read_request(["+sweep=quick"]).sweep
    assert len({create(tmp_path, sweep, environment()).path for _ in range(3)}) == 3


def test_records_come_back_in_order_of_their_start(folder) -> None:
    records = [make_record(make_case(), trial=trial) for trial in range(3)]
    for record in reversed(records):
        folder.append(record)
    assert folder.read() == (records, [])


@pytest.mark.parametrize("content", [b"", b"{", b"garbage", b"[]", b'{"case": 1}', b"\xff\xfe", to_json(make_record(make_case()))[:-40]])
def test_a_damaged_record_is_told_and_hides_no_other(folder, content: bytes) -> None:
    folder.append(make_record(make_case()))
    (folder.records / "bad-0.json").write_bytes(content)
    records, unreadable = folder.read()
    assert len(records) == 1
    assert [bad.name for bad in unreadable] == ["bad-0.json"]
    assert "runs its trial again" in unreadable[0].why or "under another name" in unreadable[0].why


def test_a_pipe_or_a_device_among_the_records_is_no_file_and_nobody_waits_for_it(folder) -> None:
    folder.append(make_record(make_case()))
    os.mkfifo(folder.records / "pipe-0.json")
    (folder.records / "zero-0.json").symlink_to("/dev/zero")
    records, unreadable = folder.read()
    assert len(records) == 1
    assert {bad.why for bad in unreadable} == {"cannot be read (no regular file)"}


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "? " * 100_000])
def test_a_sweep_file_nested_without_end_is_refused_and_does_not_end_the_process(folder, text: str) -> None:
    (folder.path / "sweep.yaml").write_text(text)
    with pytest.raises(StoreError, match="cannot be read as a sweep"):
        folder.sweep()


@pytest.mark.parametrize(
    "command", ["it's", "rm -rf ~", "", "python -c pass", "wansweep; rm -rf ~", "wansweep run ; rm -rf ~", "wansweep `id`"]
)
@pytest.mark.parametrize("key", ["command", "commands"])
def test_a_folder_whose_command_to_paste_is_none_of_ours_is_refused(folder, key: str, command: str) -> None:
    document = yaml.safe_load((folder.path / "sweep.yaml").read_text())
    document[key] = {"0" * 12: command} if key == "commands" else command
    (folder.path / "sweep.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(StoreError, match="cannot be read as a sweep"):
        folder.sweep()


@pytest.mark.parametrize("figure", ["abc", [1], {"a": 1}, float("inf"), float("nan"), True, 10**30])
def test_a_prediction_that_is_no_number_is_none_and_hides_no_other(folder, figure: object) -> None:
    odd, good = {"case_id": "a", "predicted_step_s": figure}, {"case_id": "b", "predicted_step_s": 2.5, "predicted_peak_stage": "VAE_Decoding"}
    folder.plan.write_text(json.dumps([odd, good, {"case_id": "c"}]))
    assert list(folder.predictions()) == ["b", "c"]


@pytest.mark.parametrize("text", ["", "{", "null", "5", '"x"', '["x"]', "[[1]]", "[" * 100_000])
def test_a_damaged_plan_is_no_plan(folder, text: str) -> None:
    folder.plan.write_text(text)
    assert folder.predictions() == {}


def test_a_damaged_record_is_never_overwritten(folder) -> None:
    record = make_record(make_case())
    file = folder.records / f"{record.case_id}-0.json"
    for damage in (b"cut", b"cut again"):
        file.write_bytes(damage)
        folder.append(record)
    assert folder.read() == ([record], [])
    assert [folder.records.joinpath(f"{file.name}.unreadable{n}").read_bytes() for n in ("", "-1")] == [b"cut", b"cut again"]


def of_schema(schema: int, **more: object) -> bytes:
    return json.dumps({**json.loads(to_json(make_record(make_case()))), "schema": schema, **more}).encode()


@pytest.mark.parametrize("document", [of_schema(SCHEMA + 1), of_schema(SCHEMA + 1, stages="of another kind"), b'{"schema": 99}'])
def test_a_record_of_a_newer_wansweep_says_so_and_is_never_overwritten(folder, document: bytes) -> None:
    record = make_record(make_case())
    file = folder.records / f"{record.case_id}-0.json"
    file.write_bytes(document)
    other = make_record(make_case(seed=7))
    folder.append(other)
    records, (newer,) = folder.read()
    assert records == [other]
    assert (newer.name, newer.newer) == (file.name, True)
    assert f"reads up to {SCHEMA}: upgrade wansweep" in newer.why
    with pytest.raises(StoreError, match="it is left as it is"):
        folder.append(record)
    assert file.read_bytes() == document


def test_the_oldest_record_of_this_schema_is_read_with_defaults_for_what_it_lacks() -> None:
    record = make_record(make_case())
    document = json.loads(to_json(record))
    for field in fields(Record):
        if field.default is not MISSING or field.default_factory is not MISSING:
            del document[field.name]
    assert from_json(json.dumps(document)) == record


def test_a_copy_of_a_record_does_not_count_twice(folder) -> None:
    record = make_record(make_case())
    folder.append(record)
    (folder.records / "copy of it.json").write_bytes(to_json(record))
    records, (copy,) = folder.read()
    assert records == [record]
    assert copy.why.startswith(f"the record of {record.case_id}-0 under another name")


def test_what_a_killed_process_had_begun_to_write_is_tidied_away_and_nothing_else(folder) -> None:
    begun = [folder.path / ".report.md.x1.part", folder.records / ".a-0.json.x2.part", folder.traces / ".a-0.jsonl.part"]
    for file in [*begun, kept := folder.path / ".gitignore"]:
        file.write_bytes(b"half")
    folder.tidy()
    assert kept.exists()
    assert not any(file.exists() for file in begun)


def test_a_folder_that_cannot_be_filled_is_not_left_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        create(tmp_path, read_request(["+sweep=quick"]).sweep, environment())
    assert list((tmp_path / "quick").iterdir()) == []


def test_a_file_that_is_being_written_is_no_record_yet(folder) -> None:
    (folder.records / ".abc-0.json.tmp123.part").write_bytes(b"{")
    assert folder.read() == ([], [])


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_none_of_ours_is_told(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "nothing"
    if made:
        path.mkdir()
    with pytest.raises(StoreError, match="not a run folder" if made else "no such folder"):
        open_folder(path)


def test_a_folder_of_runs_stands_for_the_newest(tmp_path: Path) -> None:
    sweep = read_request(["+sweep=quick"]).sweep
    older, newer = (create(tmp_path, sweep, environment()).path for _ in range(2))
    assert open_folder(tmp_path / "quick").path == max(older, newer)
    assert open_folder(older).path == older


def test_answers_are_not_run_again_and_accidents_are() -> None:
    assert {outcome for outcome in Outcome if not outcome.is_answer} == {Outcome.CRASH, Outcome.TIMEOUT}
