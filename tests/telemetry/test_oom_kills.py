"""Whose count of kills is asked."""

from __future__ import annotations

from pathlib import Path

from wansweep.telemetry.oom_kills import oom_kills


def tree(folder: Path, *, group: str, vmstat: str) -> dict[str, Path]:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "self" / "cgroup").write_text(f"4:memory:/old\n{group}")
    (folder / "proc" / "vmstat").write_text(vmstat)
    return {"proc": folder / "proc", "sys": folder / "sys"}


def test_a_cgroup_of_version_2_counts_for_itself(tmp_path: Path) -> None:
    folders = tree(tmp_path, group="0::/job\n", vmstat="nr_free_pages 1\noom_kill 9\n")
    (tmp_path / "sys" / "job").mkdir(parents=True)
    (tmp_path / "sys" / "job" / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    assert oom_kills(**folders) == 2


def test_without_one_the_machine_counts(tmp_path: Path) -> None:
    assert oom_kills(**tree(tmp_path, group="0::/\n", vmstat="nr_free_pages 1\noom_kill 9\n")) == 9


def test_where_nobody_counts_there_is_none(tmp_path: Path) -> None:
    assert oom_kills(proc=tmp_path, sys=tmp_path) is None
