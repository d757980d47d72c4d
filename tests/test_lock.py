"""One writer a run folder, among processes that really run at once."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runs import ROOT
from wansweep.errors import StoreError
from wansweep.lock import NAME, locked

HOLD = """
import sys; from pathlib import Path; from wansweep.lock import locked
with locked(Path(sys.argv[1])): print("mine", flush=True); sys.stdin.read()
"""
# So often in turn, a number in a file goes up by one; an update that another one overwrote would be missing.
COUNT = """
import sys, time; from pathlib import Path; from wansweep.errors import StoreError; from wansweep.lock import locked
folder = Path(sys.argv[1]); todo = 200
while todo:
    try:
        with locked(folder):
            file = folder / "count"; count = int(file.read_text() or 0); file.write_text(str(count + 1)); todo -= 1
    except StoreError as error:
        assert "writes to it" in str(error), error
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "mine\n"
            yield owner
        finally:
            owner.kill()


def test_a_folder_that_another_process_writes_to_is_refused_with_its_pid_and_host(tmp_path: Path) -> None:
    with (
        held(tmp_path) as owner,
        pytest.raises(StoreError, match=rf"pid {owner.pid} on {socket.gethostname()}, since 20.*wait until"),
        locked(tmp_path),
    ):
        pass


def test_a_dead_owner_holds_nothing(tmp_path: Path) -> None:
    with held(tmp_path) as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert (tmp_path / NAME).exists()
        with locked(tmp_path) as warning:
            assert warning == ""


def test_a_stopped_owner_holds_it_still(tmp_path: Path) -> None:
    with held(tmp_path) as owner:
        owner.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreError, match="writes to it"), locked(tmp_path):
            pass


def test_an_owner_that_ends_leaves_nothing_behind_also_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError((tmp_path / NAME).read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_owners_that_come_and_go_at_once_never_overlap(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    counters = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [counter.wait(timeout=100) for counter in counters] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "600"


def test_a_file_system_without_locks_is_told_and_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path) as warning:
        assert "no locks on this file system (No locks available)" in warning


def test_a_lock_file_with_garbage_names_nobody(tmp_path: Path) -> None:
    with held(tmp_path):
        (tmp_path / NAME).write_bytes(b"\xff{")
        with pytest.raises(StoreError, match="another wansweep writes to it"), locked(tmp_path):
            pass
