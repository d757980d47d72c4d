"""A disk that is full, or that may only be read: what was measured before stays, and the way out is one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import make_case
from tests.makers import make_record
from tests.runs import wansweep
from tests.schedule.test_kills import files, stub, wait_for_begun
from wansweep.config import read_request
from wansweep.errors import StoreError
from wansweep.publish import Publisher
from wansweep.record import Record
from wansweep.schedule.live import LiveView
from wansweep.schedule.tuning import _Watchers
from wansweep.store import RunFolder, create
from wansweep.telemetry.environment import environment


@contextmanager
def mounted(at: Path, size: str) -> Iterator[Path]:
    """A small disk of its own; without the right to mount, the test is skipped."""
    at.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(file: Path) -> None:
    """Take all the room that is left."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while os.write(handle, b"0" * 4096):
            pass
    os.close(handle)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("mount"):
        pytest.skip("only root on Linux can mount a small disk")
    with mounted(tmp_path / "disk", "16m") as disk:
        yield disk


def test_a_disk_that_fills_up_during_a_sweep_loses_nothing_recorded_and_a_resume_runs_the_rest(
    ray_address: str, small_disk: Path, tmp_path: Path
) -> None:
    sweep = replace(stub(tmp_path, ray_address, cases=4, seconds=1), reports=small_disk)
    sweep = replace(sweep, arguments=tuple(word.replace(f"reports={tmp_path}", f"reports={small_disk}") for word in sweep.arguments))
    filler = small_disk / "filler"
    with sweep.started() as driver:
        wait_for_begun(sweep, 2)
        before = files(sweep.folder)
        fill(filler)
        out, err = driver.communicate(timeout=200)
    assert (driver.returncode, out) == (2, ""), err
    assert "Traceback" not in err
    lost, way_out = err.splitlines()[-2:]
    assert "ended ok and is not kept, and nothing more was started" in lost
    assert "cannot be written (No space left on device)" in lost
    assert "make room and go on: " in way_out
    assert way_out.endswith(f"resume={sweep.folder.path} runs what is not kept again")
    assert before.items() <= files(sweep.folder).items()
    assert len(sweep.begun) < 4
    # Reading needs no room.
    read = wansweep("report", str(sweep.folder.path))
    assert (read.returncode, "not run yet" in read.stdout) == (0, True), read.stderr
    again = sweep.ran(f"resume={sweep.folder.path}")
    assert (again.returncode, again.stdout, "Traceback" in again.stderr) == (2, "", False), again.stderr
    assert "No space left on device" in again.stderr.splitlines()[-1]
    filler.unlink()
    done = sweep.ran(f"resume={sweep.folder.path}")
    assert done.returncode == 0, done.stderr
    assert before.items() <= files(sweep.folder).items()
    assert pl.read_csv(sweep.folder.path / "summary.csv")["outcome"].to_list() == ["ok"] * 4


def test_a_folder_that_may_only_be_read_is_read_and_not_gone_on_with(small_disk: Path) -> None:
    folder = create(small_disk, read_request(["+sweep=quick"]).sweep, environment())
    folder.append(make_record(folder.sweep().cases[0]))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = wansweep("run", "+sweep=quick", f"resume={folder.path}")
    told = f"wansweep: {folder.path}: nothing can be written there (Read-only file system); make it writable, or resume a copy of it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    new = wansweep("run", "+sweep=quick", f"reports={small_disk}")
    told = f"wansweep: reports={small_disk}: cannot make a run folder there (Read-only file system); choose another with reports=FOLDER\n"
    assert (new.returncode, new.stdout, new.stderr) == (2, "", told)
    for verb in (["report", str(folder.path)], ["watch", str(folder.path), "--once"], ["recommend", str(folder.path)]):
        read = wansweep(*verb)
        assert (read.returncode, read.stderr) == (0, ""), verb


class Full:
    """A disk that takes no record while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        before = os.fsync

        def fsync(handle: int) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            before(handle)

        monkeypatch.setattr("os.fsync", fsync)
        monkeypatch.setattr("wansweep.publish.write_tables", lambda *_: None)


def records(folder: RunFolder, count: int) -> list[Record]:
    return [make_record(case) for case in folder.sweep().cases[:count]]


def test_a_record_that_found_no_room_is_written_when_there_is_some_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path, read_request(["+sweep=quick"]).sweep, environment())
    publisher, (first, second) = Publisher(folder), records(folder, 2)
    disk = Full(monkeypatch)
    with pytest.raises(StoreError, match="No space left on device"):
        publisher.add(first)
    with pytest.raises(StoreError, match=f"{first.label} #0 ended ok and is not kept") as lost:
        publisher.settle()
    assert str(lost.value).splitlines()[-1].startswith("make room and go on: python -m wansweep +sweep=quick resume=")
    disk.full = False
    publisher.add(second)
    publisher.settle()
    assert {record.label for record in folder.read()[0]} == {record.label for record in publisher.records} == {first.label, second.label}


def test_a_report_that_finds_no_room_does_not_stop_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path, read_request(["+sweep=quick"]).sweep, environment())
    publisher, (record,) = Publisher(folder), records(folder, 1)

    def full(*_: object) -> None:
        raise StoreError("report.html: cannot be written")

    monkeypatch.setattr("wansweep.publish.write_tables", full)
    publisher.add(record)
    assert folder.read()[0] == [record]
    with pytest.raises(StoreError, match=r"report\.html"):
        publisher.render()


def test_a_record_that_cannot_be_kept_is_told_and_stops_the_queue_and_not_the_other_watchers(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: Record) -> None:
        raise StoreError("x.json: cannot be written (No space left on device)")

    record, stopped, told = make_record(make_case()), [], []
    view = LiveView(total=2, title="a sweep", on_record=refuse, stream=sys.stdout)

    class Other:
        def doing(self, label: str, trial: int, what: str) -> None: ...
        def progress(self, now: object) -> None: ...
        def finishing(self) -> None: ...
        def finished(self, record: Record) -> None:
            told.append(record)

    watchers = _Watchers(view, Other(), stop=lambda: stopped.append(True))
    view.doing(record.label, record.trial, "starting")
    watchers.finished(record)
    assert (stopped, told, watchers.refused, view.running, view.done) == ([True], [record], True, {}, 0)
    assert "case: ok, but it could not be kept, and no more trials start: x.json: cannot be written" in capsys.readouterr().out
