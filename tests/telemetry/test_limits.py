from __future__ import annotations

import os
from pathlib import Path

import pytest

from wansweep.telemetry.host import machine_memory
from wansweep.telemetry.limits import available_memory_bytes, host_limits


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


MEMINFO = "MemTotal: 16000 kB\nMemAvailable:    8000 kB\n"


def test_available_memory_is_the_machine_s_without_a_limit(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/job\n", "meminfo": MEMINFO})
    sys = tree(tmp_path / "sys", {"job/memory.max": "max\n", "job/memory.current": "1000\n"})
    assert available_memory_bytes(proc=proc, sys=sys) == 8000 * 1024


def test_available_memory_is_what_the_tightest_v2_cgroup_leaves_and_can_drop(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/pod/job\n", "meminfo": MEMINFO})
    files = {"memory.max": "1000000\n", "memory.current": "700000\n", "memory.stat": "anon 400000\ninactive_file 200000\n"}
    sys = tree(tmp_path / "sys", {f"pod/{name}": text for name, text in files.items()} | {"pod/job/memory.max": "max\n"})
    assert available_memory_bytes(proc=proc, sys=sys) == 500_000


def test_available_memory_of_a_v1_cgroup_counts_the_files_below_it(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "4:memory:/job\n", "meminfo": MEMINFO})
    files = {
        "memory.limit_in_bytes": "1000000",
        "memory.usage_in_bytes": "900000",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
    }
    sys = tree(tmp_path / "sys", {f"memory/job/{name}": text for name, text in files.items()})
    assert available_memory_bytes(proc=proc, sys=sys) == 150_000


def test_available_memory_is_unknown_where_meminfo_is_closed(tmp_path: Path) -> None:
    assert available_memory_bytes(proc=tmp_path, sys=tmp_path) is None
