"""The JavaScript of report.html: put together once for all processes, and at need without a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wansweep.report import library


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, and a process that has not asked yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.library.cache_clear()
    yield tmp_path
    library.library.cache_clear()


def test_the_second_process_finds_what_the_first_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.library()
    assert "vegaEmbed" in first
    library.library.cache_clear()
    monkeypatch.setattr(library, "_bundle", lambda: pytest.fail("put together twice"))
    assert library.library() == first


def test_another_version_of_the_library_is_another_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_bundle", lambda: "old")
    assert "old" in library.library()
    library.library.cache_clear()
    monkeypatch.setattr(library.metadata, "version", lambda _: "999")
    monkeypatch.setattr(library, "_bundle", lambda: "new")
    assert "new" in library.library()


def test_a_cache_that_cannot_be_written_costs_time_and_no_report(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache_home / "wansweep").write_text("a file where the folder would be")
    monkeypatch.setattr(library, "_bundle", lambda: "made here")
    assert "made here" in library.library()
