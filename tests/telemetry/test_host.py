from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import wansweep
from wansweep.telemetry import host
from wansweep.telemetry.host import Counters, Tree, counters, cpu_pct, machine_memory
from wansweep.telemetry.join import Series, by_metric, value_over
from wansweep.telemetry.samples import Missing, Value, host_device
from wansweep.telemetry.sampling import Sampling

from .workload import BLOCK_BYTES

pytestmark = pytest.mark.alone

ROOT = Path(wansweep.__file__).parent.parent
WORKLOAD = Path(__file__).parent / "workload.py"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The workload beside a sampler: what it says of itself, and what was sampled."""

    said: dict[str, Any]
    device: str
    series: dict[tuple[str, str], Series]

    def over(self, metric: str, start_s: float, end_s: float) -> Value:
        return value_over(self.series, device=self.device, metric=metric, start_s=start_s, end_s=end_s)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    workload = subprocess.Popen([sys.executable, str(WORKLOAD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert workload.stdin is not None
    assert workload.stdout is not None
    try:
        with Sampling(out=tmp_path_factory.mktemp("host") / "trace.jsonl", pids=[workload.pid]) as sampling:
            workload.stdin.write("go\n")
            workload.stdin.flush()
            said = json.loads(workload.stdout.readline())
    finally:
        workload.communicate("end\n", timeout=240)
    return Run(said=said, device=host_device(workload.pid), series=by_metric(sampling.trace.samples))


@pytest.mark.parametrize("metric", ["host_pss_bytes", "host_rss_bytes", "host_anonymous_bytes"])
def test_an_allocation_of_known_size_comes_back_within_2_percent(run: Run, metric: str) -> None:
    before, after = (run.over(metric, *run.said["marks"][stage]) for stage in ("sleep", "hold"))
    assert before.value is not None
    assert after.value is not None
    assert after.value - before.value == pytest.approx(BLOCK_BYTES, rel=0.02)


@pytest.mark.parametrize("stage", ["sleep", "hold", "burn", "child"])
def test_cpu_use_between_two_boundaries_is_within_5_points_of_what_was_burnt(run: Run, stage: str) -> None:
    measured, truth = run.said["cpu"][stage]
    assert measured == pytest.approx(truth, abs=5)
    assert (truth == 0) == (stage in ("sleep", "hold"))


def test_cpu_seconds_as_sampled_are_those_that_the_process_counted(run: Run) -> None:
    times = run.said["times"]
    start_s, end_s = times[0][0] + 0.25, times[-1][0] - 0.05
    spent = times[bisect_left(times, [end_s, 0])][1] - times[bisect_left(times, [start_s, 0])][1]
    value = run.over("host_cpu_s", start_s, end_s).value
    assert value is not None
    assert 100 * value / (end_s - start_s) == pytest.approx(100 * spent / (end_s - start_s), abs=5)


def test_cpu_seconds_of_a_child_that_ended_are_not_lost(run: Run) -> None:
    value = run.over("host_cpu_s", run.said["marks"]["sleep"][0], run.said["marks"]["child"][1])
    assert value.value == pytest.approx(run.said["own_s"] + run.said["child_s"], abs=0.1)
    assert run.said["child_s"] > 0.35


def test_a_tree_holds_children_of_children_and_leaves_out_what_it_is_told_to() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE)
    try:
        tree = Tree(os.getpid(), refresh_s=0.0)
        deadline = time.monotonic() + 10
        while len(Tree(child.pid, refresh_s=0.0).pids()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(Tree(child.pid, refresh_s=0.0).pids()) == 2
        assert child.pid in tree.pids()
        assert child.pid not in Tree(os.getpid(), without=[child.pid]).pids()
        memory, alone = tree.memory(), Tree(os.getpid(), without=[child.pid]).memory()
        assert memory is not None
        assert alone is not None
        assert memory.processes == alone.processes + 2
        assert memory.rss_bytes > alone.rss_bytes > alone.anonymous_bytes > 0
    finally:
        child.communicate(b"\n", timeout=240)


def test_a_tree_whose_root_is_gone_says_so_and_gives_no_zero() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    tree = Tree(child.pid)
    assert (tree.pids(), tree.cpu_s(), tree.memory(), tree.pss_bytes()) == ((), None, None, Missing.NO_SAMPLE)


def test_pss_that_one_process_keeps_to_itself_is_no_permission_and_no_partial_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    read = host._read
    monkeypatch.setattr(host, "_read", lambda path: None if path.endswith("smaps_rollup") else read(path))
    tree = Tree(os.getpid())
    memory = tree.memory()
    assert tree.pss_bytes() is Missing.NO_PERMISSION
    assert memory is not None
    assert memory.rss_bytes > 0


def test_bytes_read_are_those_that_went_through_read_calls(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    tree = Tree(os.getpid())
    before = counters(tree)
    (tmp_path / "file").read_bytes()
    after = counters(tree)
    if before.read_call_bytes is None or after.read_call_bytes is None:
        pytest.skip("/proc/self/io cannot be read here")
    assert after.read_call_bytes - before.read_call_bytes == pytest.approx(3_000_000, rel=0.02)


COUNTERS = Counters(t_s=10.0, cpu_s=5.0, ended_s=1.0, cpu_resolution_s=0.01, read_bytes=0, read_call_bytes=0, major_faults=0)


@pytest.mark.parametrize(
    ("wall_s", "cpu_s", "value", "why"),
    [
        (1.0, 1.5, 150.0, None),
        (1.0, 0.0, 0.0, None),
        (0.1, 0.1, None, Missing.TOO_SHORT),
        (0.0, 0.0, None, Missing.TOO_SHORT),
        (1.0, -0.5, None, Missing.ERROR),
    ],
)
def test_cpu_percent_is_of_one_core_and_null_below_the_resolution(
    wall_s: float, cpu_s: float, value: float | None, why: Missing | None
) -> None:
    after = dataclasses.replace(COUNTERS, t_s=10.0 + wall_s, cpu_s=5.0 + cpu_s)
    read = cpu_pct(COUNTERS, after)
    assert read.why is why
    assert read.value == pytest.approx(value)


def test_the_machine_has_memory_and_its_swap_is_what_meminfo_says() -> None:
    memory = machine_memory()
    assert memory["MemTotal"] > memory["MemAvailable"] > 2**20


def test_children_that_ended_before_a_window_do_not_coarsen_it() -> None:
    before = dataclasses.replace(COUNTERS, cpu_resolution_s=1e-6)
    after = dataclasses.replace(before, t_s=10.02, cpu_s=5.01)
    assert cpu_pct(before, after).value == pytest.approx(50)
    assert cpu_pct(before, dataclasses.replace(after, ended_s=1.01)).why is Missing.TOO_SHORT  # one ended in it
