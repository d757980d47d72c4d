"""Files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wansweep.errors import StoreError
from wansweep.files import write_atomic, write_out


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


def test_what_a_user_names_is_written_through_a_link_and_into_a_pipe_and_neither_is_replaced(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "report.md", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(file)
    write_out(link, b"one")
    assert (link.is_symlink(), file.read_bytes()) == (True, b"one")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_out(pipe, b"two")
    assert (pipe.is_fifo(), os.read(reader, 10)) == (True, b"two")
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "report.md"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_a_device_that_takes_nothing_is_told_and_stays_a_device() -> None:
    with pytest.raises(StoreError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write_out(Path("/dev/full"), b"x")
    assert Path("/dev/full").is_char_device()
