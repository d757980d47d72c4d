"""Processes on their node: their logs' ends without secrets, signs of life, and a certain end with all they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from wansweep.schedule.delivery import deliver
from wansweep.schedule.processes import LINE_CHARACTERS, TAIL_LINES, Arrival, Log, Pulses, end, log_tail

PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"


def arrival(pid: int) -> Arrival:
    return Arrival(pid=pid, created_s=psutil.Process(pid).create_time(), node="", monotonic_s=0.0, logs=())


def test_the_tail_is_the_trials_own_and_short(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("of the trial before\n")
    log = Log(path=path, from_byte=path.stat().st_size)
    with path.open("a") as file:
        file.write(":task_name:run\n" + "".join(f"line {number}\n\n" for number in range(50)) + "x" * 1000 + "\n")
    tail = log_tail([log])
    assert tail[0] == f"line {51 - TAIL_LINES}"
    assert len(tail) == TAIL_LINES
    assert len(tail[-1]) == LINE_CHARACTERS


def test_the_tail_names_no_home_and_no_token(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("File /home/somebody/x.py: https://user:pass@host/ hf_abcdefghijkl\n")
    assert log_tail([Log(path=path, from_byte=0)]) == ("File ~/x.py: https://***@host/ ***",)


def test_a_log_that_is_gone_has_no_tail(tmp_path: Path) -> None:
    assert log_tail([Log(path=tmp_path / "none", from_byte=0)]) == ()


def test_silence_begins_when_no_file_changes_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    pulse, journal = tmp_path / "pulse", tmp_path / "journal"
    pulse.touch()
    os.utime(pulse, (1, 1))
    pulses = Pulses()
    assert pulses.silent_s(0, pulse, journal) == 0
    now_s = 107.0
    assert pulses.silent_s(0, pulse, journal) == 7
    journal.touch()
    assert pulses.silent_s(0, pulse, journal) == 0
    now_s = 110.0
    assert pulses.silent_s(0, pulse, journal) == 3


def test_a_stopped_process_and_its_children_are_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT]) as parent:
        process = psutil.Process(parent.pid)
        while not (children := process.children()):
            time.sleep(0.05)
        where = arrival(parent.pid)
        process.send_signal(signal.SIGSTOP)
        end([where])
        assert not process.is_running()
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_pid_that_is_anothers_by_now_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        where = arrival(other.pid)
        end([replace(where, created_s=where.created_s - 100)])
        assert other.poll() is None
        other.kill()


def test_a_file_is_moved_to_the_run_folder_and_one_without_a_folder_stays(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text("x")
    deliver(file, tmp_path / "missing" / "trace", here="", there="")
    assert file.exists()
    (tmp_path / "traces").mkdir()
    deliver(file, tmp_path / "traces" / "trace", here="", there="")
    assert not file.exists()
    assert (tmp_path / "traces" / "trace").read_text() == "x"
