from __future__ import annotations

import os
from pathlib import Path

import pytest

from wansweep.telemetry.page_cache import cached_fraction
from wansweep.telemetry.samples import Missing

SIZE = 8 * 2**20


def test_what_was_written_is_cached_and_a_hole_that_nobody_read_is_not(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(SIZE)
    assert cached_fraction([path]).value == 0.0
    with path.open("rb+") as file:
        file.write(b"\1" * (SIZE // 2))
    assert cached_fraction([path]).value == pytest.approx(0.5, abs=0.05)
    whole = tmp_path / "more"
    whole.write_bytes(b"\1" * SIZE)
    assert cached_fraction([whole]).value == 1.0
    assert cached_fraction([path, whole]).value == pytest.approx(0.75, abs=0.05)


def test_a_file_of_an_odd_size_is_looked_at_to_its_last_page(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"\1" * 12_345)
    assert cached_fraction([path]).value == 1.0


def test_a_file_that_mincore_would_lie_about_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "not_ours"
    path.write_bytes(b"\1" * 4096)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 12345)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cached_fraction([path]).why is Missing.NO_PERMISSION


def test_no_file_and_no_such_file_are_told_apart(tmp_path: Path) -> None:
    assert cached_fraction([]).why is Missing.NOT_APPLICABLE
    assert cached_fraction([tmp_path / "nothing"]).why is Missing.ERROR
