from __future__ import annotations

import os
from pathlib import Path

import pytest

from wansweep.telemetry.host import machine_memory
from wansweep.telemetry.limits import host_limits


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_lowest_limit_on_the_way_up_a_v2_tree_holds(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/pod/job\n"})
    sys = tree(
        tmp_path / "sys",
        {"pod/memory.max": "1000000\n", "pod/cpu.max": "50000 100000\n", "pod/job/memory.max": "max\n", "pod/job/cpu.max": "max 100000\n"},
    )
    limits = host_limits(proc=proc, sys=sys)
    assert (limits.memory_limit_bytes, limits.usable_cores) == (1_000_000, 0.5)


def test_v1_limits_are_read_and_its_way_of_writing_none_is_known(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n"})
    sys = tree(
        tmp_path / "sys",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/job/memory.limit_in_bytes": "2000000\n",
            "cpu/job/cpu.cfs_quota_us": "25000\n",
            "cpu/job/cpu.cfs_period_us": "100000\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    limits = host_limits(proc=proc, sys=sys)
    assert (limits.memory_limit_bytes, limits.usable_cores) == (2_000_000, 0.25)


def test_in_a_container_the_mount_itself_is_looked_at(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/../somewhere/else\n"})
    limits = host_limits(proc=proc, sys=tree(tmp_path / "sys", {"memory.max": "3000000\n"}))
    assert limits.memory_limit_bytes == 3_000_000


@pytest.mark.parametrize("cgroup", ["", "0::/\n"])
def test_without_limits_the_machine_is_the_limit(tmp_path: Path, cgroup: str) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": cgroup})
    limits = host_limits(proc=proc, sys=tmp_path / "sys")
    assert limits.memory_limit_bytes is None
    assert limits.usable_cores == len(os.sched_getaffinity(0)) <= limits.logical_cores
    assert limits.memory_bytes == machine_memory()["MemTotal"]
