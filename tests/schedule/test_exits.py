"""How processes ended that are not ours to wait for: the kernel's word, and Ray's."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wansweep.schedule.exits import Exits, killed_for_memory, said, told_to_ray

KERNEL_TELLS = tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)
SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
MONITOR = (
    "1 worker(s) were killed due to the node running low on memory. \nMemory on the node (IP: 127.0.0.1, ID: 96) was 2.48GB used / 8.00GB "
    "limit (0.310601)\nOOM kill reason: Memory usage 2661531648B exceeded threshold of 2576980480B (30.0% of 8589934592B limit)\n"
)


@pytest.mark.skipif(not KERNEL_TELLS, reason="needs Linux 6.15, which tells exit codes to others than a parent")
@pytest.mark.parametrize(("how", "told"), [("exit", "exit code 3"), ("kill", "SIGKILL"), ("abort", "SIGABRT")])
def test_the_kernel_tells_how_a_process_ended_once_its_parent_knows(how: str, told: str) -> None:
    ends = {"exit": "os._exit(3)", "kill": "os.kill(os.getpid(), 9)", "abort": "os.abort()"}
    exits = Exits()
    with subprocess.Popen([sys.executable, "-c", f"import os; input(); {ends[how]}"], stdin=subprocess.PIPE) as process:
        exits.hold(process.pid)
        process.communicate(b"\n")
    assert exits.of(process.pid) == told
    exits.close()
    assert exits.of(process.pid) == ""


def test_a_process_that_runs_has_not_ended_and_one_never_seen_has_no_end() -> None:
    exits = Exits()
    with subprocess.Popen(SLEEPS) as process:
        exits.hold(process.pid)
        assert exits.of(process.pid, within_s=0.01) == ""
        process.kill()
    exits.hold(process.pid)  # gone: it keeps what it holds
    assert exits.of(2**22 + 1) == ""
    exits.close()


def test_descriptors_are_given_back() -> None:
    exits, before = Exits(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        exits.hold(os.getpid())
    exits.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_exit_code_in_words() -> None:
    assert [said(code) for code in (0, 3, -signal.SIGKILL, -61)] == ["exit code 0", "exit code 3", "SIGKILL", "signal 61"]


def test_rays_memory_monitor_is_named_with_what_was_in_use() -> None:
    assert killed_for_memory(MONITOR) == "Ray's memory monitor killed its process (2.48GB of 8.00GB in use; it kills from 30.0% on)"
    assert killed_for_memory("killed due to the node running low on memory, in other words") == "Ray's memory monitor killed its process"
    assert killed_for_memory("Worker exits unexpectedly.") == ""


def test_what_a_process_told_ray_at_its_end_is_taken_from_rays_words() -> None:
    assert told_to_ray("Worker exits unexpectedly. Worker exits with an exit code 4.") == "exit code 4"
    assert told_to_ray("Worker exits with an exit code 1. The process receives a SIGTERM.") == "SIGTERM"
    assert told_to_ray("Worker unexpectedly exits with a connection error code 2. End of file.") == ""
