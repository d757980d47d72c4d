"""The run folder: durable, append-only, and readable whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import make_case
from tests.makers import make_record
from wansweep.config import read_request
from wansweep.errors import StoreError
from wansweep.record import Outcome, from_json, to_json
from wansweep.store import create, open_folder, write_atomic
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
    assert unreadable[0].why


def test_a_file_that_is_being_written_is_no_record_yet(folder) -> None:
    (folder.records / ".abc-0.json.tmp123").write_bytes(b"{")
    assert folder.read() == ([], [])


def test_a_write_that_fails_leaves_the_old_file_and_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
